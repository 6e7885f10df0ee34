"""What a checkpoint holds when it is saved and when it is loaded."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from frdet.engine.checkpoint import from_plain, to_plain, with_layout
from frdet.errors import CheckpointError
from frdet.interop.fit import check_fit, fit_to_start
from frdet.registry import HOOKS


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Saves tensors and plain data only, so that any ``torch.load(path, weights_only=True)`` reads a checkpoint."""

    priority = 'VERY_LOW'  # after hooks that add to the checkpoint

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Flatten what is not plain, model and optimiser state apart."""
        for key in checkpoint:
            if key not in ('state_dict', 'optimizer'):
                checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Turn the histories back, for MMEngine to resume them."""
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = from_plain(checkpoint['message_hub'])


@HOOKS.register_module()
class FitCheckpointHook(Hook):
    """Refuses a checkpoint that does not fit the model, where MMEngine would warn and go on with random weights.

    Testing and resuming add it; training from ``load_from`` adds ``StartFromCheckpointHook``.

    Args:
        source: the file, for the error.
        resume: whether the checkpoint must hold a position to resume from.
    """

    priority = 'VERY_LOW'

    def __init__(self, *, source: str, resume: bool = False):
        self.source = source
        self.resume = resume

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Raise CheckpointError unless every parameter is there in its shape."""
        check_fit(_model(runner), checkpoint['state_dict'], with_layout(self.source, checkpoint))
        if self.resume and (lacking := {'meta', 'message_hub', 'optimizer'} - set(checkpoint)):
            raise CheckpointError(
                f'{self.source} has no {", ".join(sorted(lacking))} to resume from: '
                f'give its weights as a start instead, --cfg-options load_from={self.source}'
            )


@HOOKS.register_module()
class StartFromCheckpointHook(Hook):
    """As ``FitCheckpointHook`` for fine-tuning: the layers that depend on the classes may differ, and start anew.

    Args:
        source: the file, for errors.
    """

    priority = 'VERY_LOW'

    def __init__(self, *, source: str):
        self.source = source

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Leave in the checkpoint what fits; raise CheckpointError unless that is all the model needs."""
        source = with_layout(self.source, checkpoint)
        checkpoint['state_dict'] = fit_to_start(_model(runner), checkpoint['state_dict'], source)


def _model(runner: Runner) -> nn.Module:
    model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return model
