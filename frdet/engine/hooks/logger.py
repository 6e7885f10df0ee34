"""Where in training a logged figure stands."""

from mmengine.hooks import LoggerHook as MMEngineLoggerHook
from mmengine.runner import IterBasedTrainLoop, Runner

from frdet.registry import HOOKS


@HOOKS.register_module()
class LoggerHook(MMEngineLoggerHook):
    """MMEngine's hook of this name; see it for the arguments.

    In a training counted in iterations, the figures of a validation stand at its iteration in every logger. MMEngine
    puts all of them at epoch 0 unless ``log_metric_by_epoch=False`` is set.
    """

    def before_train(self, runner: Runner) -> None:
        """Choose what counts the validations."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            self.log_metric_by_epoch = False
