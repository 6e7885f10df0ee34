"""Training and testing a config: the last settings, then the Runner. Also repeating a step that was not finite."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from torch import nn

from frdet.apis.classes import classes_of_split, resolve_num_classes
from frdet.apis.launch import resolve_launcher
from frdet.checkpoints.fit import load_strictly
from frdet.checkpoints.hooks import CheckpointHook
from frdet.checkpoints.runs import newest_whole
from frdet.config import check_config
from frdet.config.schema import HOOK_SLOTS
from frdet.datasets import resolve_workers
from frdet.engine import DetRunner, predict_in_bfloat16
from frdet.engine.hooks import FitCheckpointHook, NonFiniteError, StopHook, WorkFolderHook
from frdet.engine.hooks.non_finite import Diagnosis, diagnose, load_step
from frdet.engine.hooks.work_folder import is_run_in_the_way
from frdet.engine.optim import DTYPES
from frdet.errors import CheckpointError, ConfigError, DataError, Interrupted, UserError
from frdet.evaluation import CocoMetric
from frdet.models.detectors import bare
from frdet.progress import Bar
from frdet.registry import DETECTORS, in_config_scope

GRACE = 3  # seconds
VALIDATION = ('val_dataloader', 'val_cfg', 'val_evaluator')


@in_config_scope
def train_detector(
    cfg: Config,
    *,
    work_dir: str | None = None,
    resume: bool | str = False,
    amp: bool = False,
    seed: int | None = None,
    deterministic: bool = False,
    validate: bool = True,
    launcher: str = 'none',
    overwrite: bool = False,
) -> nn.Module:
    """Train the model of a config.

    Args:
        cfg: a whole config, which is changed.
        work_dir: folder of checkpoints and logs. The default is ``cfg.work_dir``, or ``work_dirs/<name of the
            config>``.
        resume: True continues from the newest whole checkpoint in ``work_dir``, or starts if there is none. A path
            continues from this checkpoint.
        amp: compute in bfloat16 where it is safe.
        seed: seed of the random generators; None lets MMEngine draw one.
        deterministic: use algorithms whose result is the same in every run.
        validate: evaluate during training.
        launcher: 'none', 'pytorch' (torchrun) or 'slurm'.
        overwrite: start in a ``work_dir`` that holds a run, and move this run into its subfolder ``old_1``. A run of
            the same process, for example of a notebook cell that is run again, is always moved.

    Returns:
        The trained model.

    Raises:
        UserError: config, data or checkpoint are wrong, or ``work_dir`` holds a run. A new ``work_dir`` is removed if
            training had not begun.
        SystemExit: SIGTERM or SIGUSR1 stopped the run; the code is 75; see ``StopHook``.
        Interrupted: Ctrl-C stopped the run. After the first iteration a checkpoint is saved.
    """
    check_config(cfg)
    _need(cfg, 'Training', 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    if validate and any(cfg.get(key) is not None for key in VALIDATION):
        _need(cfg, 'Validation', *VALIDATION)
    begin = cfg.get('load_from'), cfg.get('resume', False)
    if resume or isinstance(resume, str):
        cfg.load_from, cfg.resume = None if resume in (True, 'auto') else resume, True
    if amp:
        kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if kind not in ('OptimWrapper', 'AutocastOptimWrapper'):
            raise ConfigError(
                f'--amp replaces OptimWrapper, found optim_wrapper.type={kind!r}: drop --amp, or that type'
            )
        cfg.optim_wrapper.type = 'AutocastOptimWrapper'
    _set_randomness(cfg, seed, deterministic)
    if not validate:
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    if overwrite and cfg.get('resume') and cfg.get('load_from') is None:
        raise ConfigError('--resume continues the run in the work dir, --overwrite moves it away: choose one')
    source = _resolve(cfg, work_dir)
    folder = WorkFolderHook(cfg, move=is_run_in_the_way(cfg, overwrite=overwrite))
    if source is None and begin[0] is not None:  # there is nothing to resume, so the run begins as the config says
        cfg.load_from, cfg.resume = begin
        source = _resolve(cfg, work_dir)
    resolve_num_classes(cfg, lambda: classes_of_split(cfg, 'train'))
    with _runner(cfg, launcher) as runner:
        if source is not None:
            resume = bool(cfg.get('resume'))
            runner.register_hook(FitCheckpointHook(source=source, resume=resume, start=not resume))
            # A checkpoint gives all weights, so the files in ``init_cfg`` are neither needed nor downloaded.
            for module in runner.model.modules():
                init_cfg = getattr(module, 'init_cfg', None)
                if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
                    module.init_cfg = None
        stop = StopHook()
        runner.register_hook(stop)
        runner.register_hook(folder)
        with stop.catching(), _failing_disk(cfg.work_dir):
            return runner.train()


@in_config_scope
def test_detector(
    cfg: Config,
    checkpoint: str | None,
    *,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    amp: bool = False,
    launcher: str = 'none',
    more_hooks: Sequence[Hook] = (),
) -> dict[str, float]:
    """Evaluate a checkpoint on the config's test data.

    Args:
        cfg: a whole config, which is changed.
        checkpoint: path or address of the weights; None: the weights with which the model was built.
        out: file for the detections as COCO's results JSON.
        show_dir: folder for pictures of the detections.
        work_dir, amp, launcher: see ``train_detector``.
        more_hooks: hooks beside those of the config.

    Returns:
        The metric values of the evaluators; none from a test set without annotations, which needs ``out`` or
        ``show_dir``.

    Raises:
        UserError: config, data or checkpoint are wrong.
    """
    check_config(cfg)
    _need(cfg, 'Testing', 'model', 'test_dataloader', 'test_cfg', 'test_evaluator')
    cfg.load_from, cfg.resume = None if checkpoint is None else str(checkpoint), False
    if out is not None:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
        coco = next((evaluator for evaluator in evaluators if evaluator.get('type') == 'CocoMetric'), None)
        if coco is None:
            raise ConfigError('--out needs a CocoMetric in test_evaluator: add one, or drop --out')
        coco.outfile = out
    if show_dir is not None:
        hooks = cfg.get('default_hooks') or {}
        drawing = {**(hooks.get('visualization') or dict(type='DrawDetectionsHook')), 'out_dir': show_dir}
        cfg.default_hooks = {**hooks, 'visualization': drawing}
    resolve_num_classes(cfg, lambda: classes_of_split(cfg, 'test'))
    # Without these settings the Runner builds no training data.
    cfg.train_dataloader = cfg.train_cfg = cfg.optim_wrapper = cfg.param_scheduler = None
    _resolve(cfg, work_dir)
    with _runner(cfg, launcher) as runner:
        if checkpoint is not None:
            runner.register_hook(FitCheckpointHook(source=str(checkpoint)))
        for hook in more_hooks:
            runner.register_hook(hook)
        if amp:
            predict_in_bfloat16(bare(runner.model))
        if show_dir is None and not more_hooks:  # such a hook may use the detections, or has words of its own
            _refuse_useless_test(runner.test_loop.evaluator.metrics)
        return runner.test()


test_detector.__test__ = False  # type: ignore[attr-defined]  # for pytest the name looks like a test


@in_config_scope
def replay_step(cfg: Config, path: str) -> Diagnosis:
    """Compute the step of a ``non_finite_iter_N.pth`` again with its weights, random numbers and precision.

    A step of a GPU runs on a GPU if there is one, otherwise on the CPU.

    Raises:
        ConfigError: the config is wrong.
        CheckpointError: the file holds no such step, or does not fit the config's model.
    """
    check_config(cfg)
    with Bar('Reading the step', 2) as bar:
        step = load_step(path)
        model = DETECTORS.build(cfg.model)
        load_strictly(model, step['state_dict'], path)
        bar.advance(description='Computing it')
        device = 'cuda' if 'cuda' in step['rng'] and torch.cuda.is_available() else 'cpu'
        autocast = torch.autocast(device, DTYPES[step['autocast']]) if step['autocast'] else None
        return diagnose(model.to(device).train(), step['batch'], step['rng'], autocast)


def _refuse_useless_test(metrics: Sequence[Any]) -> None:
    """Raise DataError if no metric can compute a value or write the detections."""
    if metrics and all(
        isinstance(m, CocoMetric) and m.outfile is None and not m.truth().has_annotation for m in metrics
    ):
        raise DataError(
            f'{metrics[0].truth().names} has no annotation, so there is nothing to compute: write the detections by '
            '--out results.json, or draw them by --show-dir DIR'
        )


def _need(cfg: Config, what: str, *keys: str) -> None:
    # An empty value counts as given: test_cfg = dict() is a loop.
    if missing := [key for key in keys if cfg.get(key) is None]:
        raise ConfigError(
            f'{what} needs {", ".join(keys)}: {cfg.filename or "the config"} has no {" and no ".join(missing)}'
        )


def _set_randomness(cfg: Config, seed: int | None, deterministic: bool) -> None:
    cfg.randomness = {'seed': None, **(cfg.get('randomness') or {})}
    if seed is not None:
        cfg.randomness.seed = seed
    if deterministic:
        cfg.randomness.deterministic = True
    if cfg.randomness.get('deterministic'):
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # without it cuBLAS is not deterministic


def _resolve(cfg: Config, work_dir: str | None) -> str | None:
    """Resolve the settings that training and testing share. Returns the checkpoint to load, if it is known."""
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(cfg.filename or 'config').stem))
    resolve_workers(cfg)
    # MMEngine drops its own hooks that are None, and stops at other hooks that are None.
    for slot, hook in list((cfg.get('default_hooks') or {}).items()):
        if hook is None and slot not in HOOK_SLOTS:
            del cfg.default_hooks[slot]
    source = cfg.get('load_from')
    if source is None and cfg.get('resume'):
        source = cfg.load_from = newest_whole(cfg.work_dir)
    if source is not None and '://' not in source and not Path(source).expanduser().is_file():
        raise CheckpointError(
            f'No checkpoint {source}: give the path of a file that train.py wrote, such as epoch_12.pth'
        )
    return source


@contextlib.contextmanager
def _failing_disk(work_dir: str) -> Iterator[None]:
    """Turn the error of a log that cannot be written into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) and Path(work_dir).is_dir():
            raise
        raise UserError(
            f'Training stopped: {work_dir} could not be written ({error.strerror}). Checkpoints in it are whole.\n'
            'Free some space or repair the folder, then continue with --resume'
        ) from error


@contextlib.contextmanager
def _runner(cfg: Config, launcher: str) -> Iterator[DetRunner]:
    """The Runner of ``cfg``. An error or Ctrl-C before the first step removes the work dir that was made for it."""
    # Before the processes join, so that no process sees the folder of another one.
    path = Path(cfg.work_dir).resolve()
    made = [p for p in (path, *path.parents) if not p.exists()]
    runner = None
    try:
        resolve_launcher(cfg, launcher)
        runner = DetRunner.from_cfg(cfg)
        yield runner
    except (UserError, KeyboardInterrupt) as error:
        # runner.iter would build the data, which may just have failed.
        loop = runner._train_loop if runner is not None else None
        begun = isinstance(error, NonFiniteError) or (isinstance(loop, BaseLoop) and getattr(loop, 'iter', 0) > 0)
        if not is_main_process():
            # A slow process may have made its folders after the main one has cleaned up. Folders with files stay.
            for folder in sorted((*path.rglob('*'), path), reverse=True) if made else ():
                with contextlib.suppress(OSError):
                    folder.rmdir()
            # Launchers kill all processes when one ends, so the main process gets time to clean up.
            time.sleep(GRACE)
        elif made and not begun:
            if runner is not None:
                runner.visualizer.close()  # open files would be written at the end of the process
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):  # another run may be in the parent folder by now
                for parent in made[1:]:
                    parent.rmdir()
        if isinstance(error, KeyboardInterrupt) and cfg.get('train_cfg') is not None:
            raise _interrupted(error, runner) from error
        raise


def _interrupted(error: KeyboardInterrupt, runner: DetRunner | None) -> Interrupted:
    """Let an interrupt say what the run has saved, also where ``StopHook`` did not save: before the first iteration."""
    if isinstance(error, Interrupted):
        return error
    saver = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None) if runner else None
    saved = saver.last_ckpt if saver else None
    return Interrupted('Stopped at once' if saved else 'Stopped, nothing to save yet', saved)
