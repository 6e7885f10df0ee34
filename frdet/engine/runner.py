"""MMEngine's Runner with a learning rate that knows every image of a step."""

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from mmengine.visualization import Visualizer
from torch import nn

from frdet.engine.hooks.progress import ProgressHook
from frdet.errors import ConfigError

# What MMEngine's backends of the visualizer import when they are first used.
PACKAGES = dict(
    WandbVisBackend='wandb',
    MLflowVisBackend='mlflow',
    TensorboardVisBackend='tensorboard',
    ClearMLVisBackend='clearml',
    NeptuneVisBackend='neptune',
    DVCLiveVisBackend='dvclive',
    AimVisBackend='aim',
)


class DetRunner(Runner):
    """Differs from MMEngine's where several processes or accumulated gradients make a step larger."""

    _begun: ClassVar[set[str]] = set()
    _timestamp: str

    def setup_env(self, env_cfg: dict) -> None:
        """As MMEngine's; two runs that a process begins in the same second have different names.

        Loggers and visualizers are found by that name: the second run would write into the first one's folder.
        """
        super().setup_env(env_cfg)
        second, number = self._timestamp, 1
        while self._timestamp in self._begun:
            number += 1
            self._timestamp = f'{second}_{number}'
        self._begun.add(self._timestamp)

    def train(self) -> nn.Module:
        """As MMEngine's; no bar stays on the terminal, whatever ends it."""
        with self._closing_bars():
            return super().train()

    def val(self) -> dict:
        """As MMEngine's; see ``train``."""
        with self._closing_bars():
            return super().val()

    def test(self) -> dict:
        """As MMEngine's; see ``train``."""
        with self._closing_bars():
            return super().test()

    @contextlib.contextmanager
    def _closing_bars(self) -> Iterator[None]:
        try:
            yield
        finally:
            for hook in self.hooks:
                if isinstance(hook, ProgressHook):
                    hook.close()

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale the learning rate by images in a step / ``auto_scale_lr.base_batch_size`` (Goyal et al. 2017).

        A step has the images of all processes, and of all ``accumulative_counts`` iterations, which MMEngine leaves
        out.
        """
        if not auto_scale_lr or not auto_scale_lr.get('enable'):
            return
        if not (base := auto_scale_lr.get('base_batch_size')):
            raise ConfigError(
                'auto_scale_lr.enable=True without base_batch_size: give the images in a step that optimizer.lr is for'
            )
        loader = self._train_dataloader
        batch = loader['batch_size'] if isinstance(loader, dict) else loader.batch_size
        count = optim_wrapper._accumulative_counts
        images = self.world_size * batch * count
        for group in optim_wrapper.optimizer.param_groups:
            group['lr'] *= images / base
        lr = optim_wrapper.optimizer.defaults['lr']
        self.logger.info(
            f'Learning rate: {lr:g} is for {base} images in a step. Here: processes {self.world_size} x images {batch} '
            f'x accumulated {count} = {images}, so {lr:g} x {images} / {base} = {lr * images / base:g}'
        )

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As MMEngine's; metrics that ask for it are given the data set, before the first step of training."""
        return _with_data_set(super().build_val_loop(loop))

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """As MMEngine's; see ``build_val_loop``."""
        return _with_data_set(super().build_test_loop(loop))

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """As MMEngine's; a package that a backend lacks is missed now, not at the first figure."""
        built = super().build_visualizer(visualizer)
        for backend in built._vis_backends.values():
            name = type(backend).__name__
            if (package := PACKAGES.get(name)) and find_spec(package) is None:
                raise ConfigError(
                    f'visualizer.vis_backends: {name} needs a package that is missing: pip install {package}'
                )
        return built

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """As MMEngine's; says which learning rate holds where the number of images in a step has changed."""
        here = self._peak_rate()
        super().resume(filename, *args, **kwargs)
        kept = self._peak_rate()
        if here is not None and kept is not None and abs(here - kept) > 1e-6 * kept:
            self.logger.warning(
                f'Learning rate: {kept:g} before the schedule, as in the checkpoint, although this config gives '
                f'{here:g}. Resume with as many images in a step, or start from the weights alone with load_from'
            )

    def _peak_rate(self) -> float | None:
        """The learning rate that the schedule multiplies, None before the optimiser is built."""
        if not isinstance(self.optim_wrapper, OptimWrapper):
            return None
        group = self.optim_wrapper.optimizer.param_groups[0]
        return float(group.get('initial_lr', group['lr']))

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """As MMEngine's; SyncBN, which PyTorch has for GPUs only, is worded where several processes have none."""
        if self.distributed and not torch.cuda.is_available():
            wants_sync = bool(self.cfg.get('sync_bn')) or any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
            if wants_sync and self._train_loop is not None:
                raise ConfigError(
                    'SyncBN on several processes needs GPUs, and there is none: choose norm=dict(type="GN") or "BN", '
                    'and leave sync_bn out'
                )
            # In testing it is BN.
            model = revert_sync_batchnorm(model)
        return super().wrap_model(model_wrapper_cfg, model)


def _with_data_set(loop: Any) -> Any:
    """Call ``use_dataset``, of metrics that have it, with the data set they will be asked about."""
    for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
        if hasattr(metric, 'use_dataset'):
            metric.use_dataset(loop.dataloader.dataset)
    return loop
