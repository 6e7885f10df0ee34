"""MMEngine's Runner, with a learning rate for the images of a step and a resume that follows the config."""

import contextlib
import functools
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from frdet.config.text import QuickConfig
from frdet.datasets.loaders import end_workers
from frdet.datasets.wrappers import category_ids_of
from frdet.engine.hooks.progress import ProgressHook
from frdet.engine.hooks.summary import ScreenFilter, SummaryHook
from frdet.engine.optim import freeze_parameters, scale_lr
from frdet.engine.resuming import SETUP, Setup, position_of, resume_state, setup_of
from frdet.engine.schedules import resolve_shares, settings_of
from frdet.errors import CheckpointError, ConfigError
from frdet.models.detectors import bare

# MMEngine's visualizer backends, such as WandbVisBackend, import these packages at their first use.
PACKAGES = ('wandb', 'mlflow', 'tensorboard', 'clearml', 'neptune', 'dvclive', 'aim')


def _closing_bars(method: Callable[[Runner], Any]) -> Any:
    """Return MMEngine's method, after which no worker runs, and no bar stays on the terminal even after an error."""

    @functools.wraps(method)
    def run(self: Runner) -> Any:
        try:
            result = method(self)
        except Exception:  # a signal ends the process, and its workers with it
            self._end_workers()
            raise
        else:
            self._end_workers()
            return result
        finally:
            for hook in self.hooks:
                if isinstance(hook, ProgressHook):
                    hook.close()

    return run


class DetRunner(Runner):
    """MMEngine's Runner; each method says how it differs."""

    _begun: ClassVar[set[str]] = set()
    _timestamp: str
    _setup: Setup | None = None
    _resumed: dict[str, Any] | None = None
    rate: str | None = None  # how the learning rate was scaled, in words
    optim_wrapper: Any
    param_schedulers: Any

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        """As MMEngine's, with a config whose text takes no time."""
        return super().from_cfg(QuickConfig(cfg))

    def _end_workers(self) -> None:
        for loop in (self._train_loop, self._val_loop, self._test_loop):
            if isinstance(getattr(loop, 'dataloader', None), DataLoader):
                end_workers(loop.dataloader)

    def setup_env(self, env_cfg: dict) -> None:
        """As MMEngine's; two runs that a process starts in the same second get different names.

        Loggers and visualizers are found by this name: the second run would write into the first one's folder.
        """
        super().setup_env(env_cfg)
        second, number = self._timestamp, 1
        while self._timestamp in self._begun:
            number += 1
            self._timestamp = f'{second}_{number}'
        self._begun.add(self._timestamp)

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """As MMEngine's; before the first step the terminal shows only warnings and the summary of the run.

        With ``log_level='DEBUG'`` the terminal shows everything.
        """
        logger = super().build_logger(log_level, log_file, **kwargs)
        self._screen = ScreenFilter()
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler and handler.level > logging.DEBUG:
                handler.addFilter(self._screen)
        return logger

    def register_hooks(self, *args: Any, **kwargs: Any) -> None:
        """As MMEngine's; adds the hook that logs the summary of the run."""
        super().register_hooks(*args, **kwargs)
        self.register_hook(SummaryHook(self._screen))

    train = _closing_bars(Runner.train)
    val = _closing_bars(Runner.val)
    test = _closing_bars(Runner.test)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate once, as ``frdet.engine.optim.scale_lr``; notes the optimiser's setup after that."""
        if self._setup is not None:
            return
        loader = self._train_dataloader
        batch: Any = loader.get('batch_size') if isinstance(loader, dict) else loader.batch_size
        if said := scale_lr(optim_wrapper, auto_scale_lr, batch, self.world_size):
            self.logger.info(f'Learning rate: {said}')
            self.rate = said
        if not isinstance(optim_wrapper, OptimWrapperDict):  # several optimisers are left to MMEngine
            self._setup = setup_of(optim_wrapper, bare(self.model))

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As MMEngine's; gives the data set to metrics with ``use_dataset``, before the first step of training."""
        return _with_data_set(super().build_val_loop(loop))

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As MMEngine's; see ``build_val_loop``."""
        return _with_data_set(super().build_test_loop(loop))

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """As MMEngine's; a missing package of a backend is an error now, not at the first logged value."""
        built = super().build_visualizer(visualizer)
        for backend in built._vis_backends.values():
            name = type(backend).__name__
            package = name.removesuffix('VisBackend').lower()
            if package in PACKAGES and find_spec(package) is None:
                raise ConfigError(
                    f'visualizer.vis_backends: {name} needs a package that is missing: pip install {package}'
                )
        return built

    def build_param_scheduler(self, scheduler: Any) -> Any:
        """As MMEngine's; resolves shares of the run, and notes the arguments of the schedules for checkpoints."""
        scheduler = resolve_shares(scheduler, self.train_loop.max_epochs, self.train_loop.max_iters)
        built = super().build_param_scheduler(scheduler)
        if self._setup is not None and not self._setup.schedules and isinstance(built, list):
            length = len(self.train_dataloader)
            for one, entry in zip(built, scheduler if isinstance(scheduler, Sequence) else [scheduler], strict=True):
                converted = isinstance(entry, dict) and entry.get('convert_to_iter_based')
                self._setup.schedules.append(settings_of(one, entry, length if converted else None))
        return built

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, meta: dict | None = None, **kwargs: Any) -> None:
        """As MMEngine's; ``meta`` gets the classes' category ids, and the setup of optimiser and schedules."""
        if ids := category_ids_of(self.train_dataloader.dataset):
            meta = {**(meta or {}), 'category_ids': ids}
        if self._setup is not None:
            meta = {**(meta or {}), SETUP: asdict(self._setup)}
        super().save_checkpoint(out_dir, filename, *args, meta=meta, **kwargs)

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As MMEngine's; also gives the checkpoint to ``resume``."""
        with contextlib.redirect_stdout(io.StringIO()):  # MMEngine prints a line, and the log has said the same
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        if self._resumed is not None:
            if not {'epoch', 'iter'} <= checkpoint['meta'].keys():
                raise CheckpointError(
                    f'{filename} has no position to resume from, meta has no epoch and iter: start from its weights '
                    f'alone instead, --cfg-options load_from={filename}'
                )
            self._resumed.update(checkpoint)
        return checkpoint

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: Any = 'default',
    ) -> None:
        """As MMEngine's; optimiser and schedules keep the config's options, see ``frdet.engine.resuming``.

        Raises:
            CheckpointError: the checkpoint has no position, or the state of another optimiser or of other parameters.
            ConfigError: the run ends before the checkpoint, or its schedules cannot be resumed.
        """
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        self.scale_lr(self.optim_wrapper, self.auto_scale_lr)  # if resume() is called before train()
        if self.param_schedulers is not None:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
        ours = self._setup is not None and resume_optimizer and resume_param_scheduler
        self._resumed = {}
        try:
            super().resume(filename, resume_optimizer and not ours, resume_param_scheduler and not ours, map_location)
            checkpoint = self._resumed
        finally:
            self._resumed = None
        position = position_of(self.train_loop, self.message_hub, filename)
        if self._setup is not None and ours and 'optimizer' in checkpoint:
            warning = resume_state(
                self.optim_wrapper,
                self.param_schedulers or [],
                checkpoint,
                self._setup,
                position,
                source=filename,
                listed=not isinstance(self.cfg.get('param_scheduler'), dict),
            )
            if warning is not None:
                self.logger.warning(warning)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As MMEngine's; SyncBN in several processes without a GPU, which PyTorch cannot run, is an error."""
        if self.distributed and not torch.cuda.is_available():
            wants_sync = bool(self.cfg.get('sync_bn')) or any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
            if wants_sync and self._train_loop is not None:
                raise ConfigError(
                    'SyncBN on several processes needs GPUs, and there is none: choose norm=dict(type="GN") or "BN", '
                    'and leave sync_bn out'
                )
            model = revert_sync_batchnorm(model)  # testing uses it as BN
        paramwise = (self.cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}
        if self._train_loop is not None and paramwise.get('freeze'):
            freeze_parameters(model, paramwise['freeze'])  # DistributedDataParallel must know before it wraps the model
        return super().wrap_model(model_wrapper_cfg, model)


def _with_data_set(loop: Any) -> Any:
    """Give the loop's data set to the metrics that have ``use_dataset``."""
    for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
        if hasattr(metric, 'use_dataset'):
            metric.use_dataset(loop.dataloader.dataset)
    return loop
