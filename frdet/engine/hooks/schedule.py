"""The steps of schedules that follow a metric of validation."""

from itertools import chain

from mmengine.hooks import ParamSchedulerHook as MMEngineParamSchedulerHook
from mmengine.runner import Runner

from frdet.checkpoints.hooks import can_choose
from frdet.engine.schedules import follows_metric
from frdet.registry import HOOKS


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
