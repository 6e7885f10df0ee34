"""Hooks around validation: its losses, its step in the loggers, and what follows from its metrics."""

from collections.abc import Sequence
from itertools import chain
from math import inf
from typing import Any, Literal

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.hooks import LoggerHook as MMEngineLoggerHook
from mmengine.hooks import ParamSchedulerHook as MMEngineParamSchedulerHook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor

from frdet.checkpoints.hooks import can_choose
from frdet.engine.schedules import follows_metric
from frdet.errors import ConfigError
from frdet.models.detectors import bare
from frdet.registry import HOOKS
from frdet.structures import DetDataSample


@HOOKS.register_module()
class ValLossHook(Hook):
    """Adds ``val_loss`` and its parts, such as ``val_loss_cls``, to the metrics of each validation: means over images.

    They are computed in a second forward pass with the weights of validation (with ``EMAHook`` the averaged ones),
    without augmentation and gradients. Each batch has its own seed, the same in every validation, so the values differ
    by the weights alone; the random numbers of training do not change. The images need ground truth. Crowds and boxes
    without area are left out, as in training.
    """

    priority = 'HIGHEST'  # before the hooks that log metrics or choose the best checkpoint

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def before_val_epoch(self, runner: Runner) -> None:
        self._sums = {}

    @torch.no_grad()
    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[DetDataSample] | None = None
    ) -> None:
        """Compute the losses of a batch."""
        model = bare(runner.model)
        data = model.data_preprocessor(data_batch, False)
        data['data_samples'] = [_with_area(sample) for sample in data['data_samples']]
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(batch_idx)
            total, logged = model.parse_losses(model(**data, mode='loss'))
        images = len(data['data_samples'])
        losses = {name: value for name, value in logged.items() if name.startswith('loss_')}
        for name, value in {'loss': total, **losses, 'images': torch.ones_like(total)}.items():
            self._sums[name] = self._sums.get(name, 0) + value * images

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the means over all processes to the metrics."""
        if metrics is None or not self._sums:
            return
        sums = torch.stack([value.double() for value in self._sums.values()])
        all_reduce(sums)
        means = dict(zip(self._sums, (sums / sums[-1]).tolist(), strict=True))
        metrics.update({f'val_{name}': value for name, value in means.items() if name != 'images'})


def _with_area(sample: DetDataSample) -> DetDataSample:
    boxes = sample.gt_instances.bboxes
    sample = sample.new()
    sample.gt_instances = sample.gt_instances[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]
    return sample


@HOOKS.register_module()
class LoggerHook(MMEngineLoggerHook):
    """MMEngine's hook of this name, with the same arguments.

    If training counts iterations, every logger gets the metrics of a validation at its iteration. MMEngine logs all of
    them at epoch 0 unless ``log_metric_by_epoch=False`` is set.
    """

    def before_train(self, runner: Runner) -> None:
        """Choose epochs or iterations as the step."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            self.log_metric_by_epoch = False


@HOOKS.register_module()
class ParamSchedulerHook(MMEngineParamSchedulerHook):
    """MMEngine's hook of this name, except that a validation that measured nothing does not count as a bad one.

    Raises:
        ConfigError: validation has no metric that ``monitor`` of ``ReduceOnPlateauLR`` names.
    """

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Step the schedules that follow a metric."""
        schedulers = runner.param_schedulers
        for scheduler in chain(*(schedulers.values() if isinstance(schedulers, dict) else [schedulers or []])):
            is_due = metrics is not None and follows_metric(scheduler)
            if is_due and can_choose(runner, scheduler.monitor, metrics, f'{type(scheduler).__name__}.monitor'):
                scheduler.step(metrics)


@HOOKS.register_module()
class EarlyStoppingHook(Hook):
    """Ends training after ``patience`` validations in a row without a better metric value than the best one.

    It differs from MMEngine's hook of this name: the default metric is AP, from 0 to 1, so ``min_delta`` is 0; an equal
    value is no progress; a validation that measured nothing does not count; a resumed run continues to count; an
    unknown ``monitor`` is an error.

    Args:
        monitor: name of a metric of validation, as in the log.
        rule: whether 'greater' or 'less' is better; None is 'less' if the name contains 'loss', else 'greater'.
        patience: number of validations.
        min_delta: the least improvement that counts.

    Raises:
        ConfigError: validation has no metric ``monitor``; raised after the first validation.
    """

    priority = 'LOW'

    def __init__(
        self,
        *,
        monitor: str = 'coco/bbox_mAP',
        rule: Literal['greater', 'less'] | None = None,
        patience: int = 5,
        min_delta: float = 0.0,
    ):
        if rule not in (None, 'greater', 'less') or patience < 1:
            raise ConfigError(f"EarlyStoppingHook: rule {rule!r}, patience {patience}: 'greater' or 'less', 1 or more")
        self.monitor = monitor
        self.sign = -1 if (rule or ('less' if 'loss' in monitor else 'greater')) == 'less' else 1
        self.patience = patience
        self.min_delta = min_delta

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Compare with the best value, which is kept in MMEngine's message hub and so in checkpoints."""
        if runner.train_loop is None or not can_choose(runner, self.monitor, metrics, 'EarlyStoppingHook.monitor'):
            return
        value = (metrics or {})[self.monitor]
        best, waited = runner.message_hub.get_info('early_stopping', None) or (-inf, 0)
        is_better = self.sign * value > best + self.min_delta
        best, waited = (self.sign * value, 0) if is_better else (best, waited + 1)
        runner.message_hub.update_info('early_stopping', (best, waited))
        if waited >= self.patience:
            runner.logger.info(
                f'Early stopping: {self.monitor} has been no better than {self.sign * best:g} for {waited} validations'
            )
            runner.train_loop.stop_training = True
