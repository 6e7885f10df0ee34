"""When a schedule that follows a figure of validation moves on."""

from itertools import chain

from mmengine.hooks import ParamSchedulerHook as MMEngineParamSchedulerHook
from mmengine.runner import Runner

from frdet.checkpoints.hooks import can_choose
from frdet.registry import HOOKS


@HOOKS.register_module()
class ParamSchedulerHook(MMEngineParamSchedulerHook):
    """MMEngine's hook of this name, for which a validation that measured nothing is no bad one.

    Raises:
        ConfigError: the validation has no figure of the name in ``monitor`` of ``ReduceOnPlateauLR``.
    """

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Hand the figures to the schedules that follow one of them."""
        schedulers = runner.param_schedulers
        for scheduler in chain(*(schedulers.values() if isinstance(schedulers, dict) else [schedulers or []])):
            is_due = metrics is not None and getattr(scheduler, 'need_val_args', False)
            if is_due and can_choose(runner, scheduler.monitor, metrics, f'{type(scheduler).__name__}.monitor'):
                scheduler.step(metrics)
