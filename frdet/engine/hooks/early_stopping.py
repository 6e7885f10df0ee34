"""Ending training when validation no longer improves."""

from math import inf
from typing import Literal

from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.checkpoints.hooks import can_choose
from frdet.errors import ConfigError
from frdet.registry import HOOKS


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
