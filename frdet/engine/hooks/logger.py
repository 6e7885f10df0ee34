"""The step of a validation in the loggers."""

from mmengine.hooks import LoggerHook as MMEngineLoggerHook
from mmengine.runner import IterBasedTrainLoop, Runner

from frdet.registry import HOOKS


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
