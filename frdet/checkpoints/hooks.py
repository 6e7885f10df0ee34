"""Hooks that save checkpoints, remove old ones, and check that a loaded checkpoint fits the model."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from frdet.checkpoints.fit import check_fit, fit_to_start
from frdet.checkpoints.runs import WHOLE, from_plain, to_plain, with_layout, write_whole
from frdet.errors import CheckpointError, ConfigError
from frdet.evaluation.coco_metric import is_defined
from frdet.files import UNFINISHED
from frdet.models.detectors import bare
from frdet.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's hook of this name, with its arguments; a file is written completely or not at all.

    An old checkpoint is removed only after the new one is on the disk. With ``by_epoch=False`` checkpoints may also be
    saved within an epoch.
    """

    keep_ckpt_ids: deque[int]
    backend_args: dict[str, Any] | None

    def before_train(self, runner: Runner) -> None:
        """Make the folder, remove unfinished files of a killed run, and catch up on a validation.

        A checkpoint at the end of an epoch is saved before the validation of this epoch. A run that resumes from it
        validates first: else the metric values, the best checkpoint and what early stopping counts would lack it.
        """
        is_local = '://' not in str(self.out_dir or runner.work_dir)
        if is_local and self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend=WHOLE)
        super().before_train(runner)
        if is_local and is_main_process():
            folder = Path(self.out_dir)
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob(f'.*{UNFINISHED}'):
                path.unlink(missing_ok=True)
        if _lacks_validation(runner):
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """As MMEngine's; also notes in later checkpoints that this validation was done."""
        runner.message_hub.update_info('evaluated_at', _step(runner))
        super().after_val_epoch(runner, metrics)

    def save_position(self, runner: Runner) -> str:
        """Save a checkpoint between two iterations, or within a validation. Returns its path.

        If the run saves by epochs, the next checkpoint replaces this one.
        """
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        if self.by_epoch:
            path = self.file_backend.join_path(self.out_dir, f'iter_{runner.iter}.pth')
            self._save(runner, path, meta, extra=path)
        else:
            self._save_checkpoint_with_step(runner, runner.iter, meta)
        return self.last_ckpt

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated = ''
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self._path(self.keep_ckpt_ids[0])
            self.keep_ckpt_ids.append(step)  # drops the first of a full one
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._save(runner, self._path(step), meta, outdated=outdated)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return
        names = [next(iter(metrics)) if name == 'auto' else name for name in self.key_indicators]
        unusable = [name for name in names if not can_choose(runner, name, metrics, 'CheckpointHook.save_best')]
        metrics = {**metrics, **dict.fromkeys(unusable)}  # MMEngine skips a metric value of None
        # MMEngine removes the best checkpoint before it saves the better one, so its path is hidden from MMEngine.
        hub = runner.message_hub
        before = [value for key, value in hub.runtime_info.items() if key.startswith('best_ckpt')]
        self.best_ckpt_path, self.best_ckpt_path_dict = None, dict.fromkeys(names)
        super()._save_best_checkpoint(runner, metrics)
        self.best_ckpt_path = hub.get_info('best_ckpt')
        self.best_ckpt_path_dict = {name: hub.get_info(f'best_ckpt_{name}') for name in names}
        self._remove(runner, before)

    def _save(self, runner: Runner, path: str, meta: dict[str, Any], *, outdated: str = '', extra: str = '') -> None:
        """Save ``path``, write it to ``last_checkpoint``, then remove ``outdated`` and the ``extra`` one before."""
        hub = runner.message_hub
        before = hub.get_info('extra_ckpt', '')
        hub.update_info('extra_ckpt', extra)
        hub.update_info('last_ckpt', path)
        self.last_ckpt = path
        runner.save_checkpoint(
            self.out_dir,
            Path(path).name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_whole(Path(runner.work_dir, 'last_checkpoint'), str(path).encode())
        self._remove(runner, [outdated, before])

    def _remove(self, runner: Runner, paths: list[str]) -> None:
        hub = runner.message_hub
        kept = {self.last_ckpt, *(value for key, value in hub.runtime_info.items() if key.startswith('best_ckpt'))}
        for name in paths if is_main_process() else []:
            # In this run's folder, never in the one that was resumed from.
            path = name and self.file_backend.join_path(self.out_dir, Path(name).name)
            if path and path not in kept and self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))


def _lacks_validation(runner: Runner) -> bool:
    """Whether a validation belongs to the position of a resumed run, and its checkpoint was saved before it.

    A loop of another class than MMEngine's decides this itself.
    """
    loop, step = runner.train_loop, _step(runner)
    if runner.val_loop is None or step == 0 or runner.message_hub.get_info('evaluated_at') == step:
        return False
    if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        return False
    loop._decide_current_val_interval()
    return validates_at(loop, step)


def validates_at(loop: EpochBasedTrainLoop | IterBasedTrainLoop, step: int) -> bool:
    """Whether a training validates after ``step`` epochs, or iterations if it counts these."""
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    return step >= loop.val_begin and (step % loop.val_interval == 0 or step == last)


def _step(runner: Runner) -> int:
    """How many epochs, or iterations in a training that counts iterations, are trained."""
    return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter


def can_choose(runner: Runner, name: str, metrics: dict[str, float] | None, key: str) -> bool:
    """Return whether the metric ``name``, which ``key`` of the config names, measured anything in a validation.

    If it measured nothing, a warning says so, once in a run for each ``key``.

    Raises:
        ConfigError: the validation has no metric of this name.
    """
    value = (metrics or {}).get(name)
    if metrics and name not in metrics:
        raise ConfigError(f'{key} is {name!r}, which validation does not give: it gives {", ".join(metrics)}')
    if is_defined(name, value):
        return True
    said = f'undefined/{key}/{name}'
    if not runner.message_hub.get_info(said, False):
        runner.message_hub.update_info(said, True, resumed=False)
        runner.logger.warning(
            f'{key}: {name} is {value}: there was nothing to measure, such as no object. This validation '
            'counts neither as better nor as worse'
        )
    return False


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Saves tensors and plain data only, so that any ``torch.load(path, weights_only=True)`` reads a checkpoint."""

    priority = 'VERY_LOW'  # after hooks that add to the checkpoint

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Flatten all other values than the states of model and optimiser, which are plain already."""
        for key in checkpoint:
            if key not in ('state_dict', 'optimizer'):
                checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Restore the histories, which MMEngine resumes."""
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = from_plain(checkpoint['message_hub'])


@HOOKS.register_module()
@dataclass(kw_only=True, eq=False)
class FitCheckpointHook(Hook):
    """Refuses a checkpoint that does not fit the model; MMEngine would only warn and keep random weights.

    Testing, resuming, and training from ``load_from`` add this hook.

    Args:
        source: the file, for errors.
        resume: whether the checkpoint must have the state of a run to resume.
        start: whether training starts from the weights alone: layers for another number of classes then start anew.

    Attributes:
        loaded: the file, its layout and the number of tensors, in words; empty before the file is loaded.
    """

    priority = 'VERY_LOW'

    source: str
    resume: bool = False
    start: bool = False
    loaded: str = field(default='', init=False)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Raise CheckpointError unless every parameter is there and has the right shape."""
        model, state, source = bare(runner.model), checkpoint['state_dict'], with_layout(self.source, checkpoint)
        if self.start:
            checkpoint['state_dict'] = fit_to_start(model, state, source)
        else:
            check_fit(model, state, source)
        taken = sum(value is state.get(name) for name, value in checkpoint['state_dict'].items())
        anew = len(checkpoint['state_dict']) - taken
        self.loaded = f'{source}, {taken} tensors' + (f', {anew} start anew' if anew else '')
        if self.resume and (lacking := {'meta', 'message_hub', 'optimizer'} - set(checkpoint)):
            raise CheckpointError(
                f'{self.source} has no {", ".join(sorted(lacking))} to resume from: '
                f'start from its weights alone instead, --cfg-options load_from={self.source}'
            )
