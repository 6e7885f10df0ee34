"""What a checkpoint holds when it is saved and when it is loaded."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from frdet.engine.checkpoint import from_plain, to_plain
from frdet.errors import CheckpointError
from frdet.interop.pretrained import check_fit
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

    Testing and resuming add it. Fine-tuning from ``load_from`` does not: its classifier may differ.

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
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_fit(model, checkpoint.get('state_dict', checkpoint), self.source)
        if self.resume and (lacking := {'meta', 'message_hub', 'optimizer'} - set(checkpoint)):
            raise CheckpointError(
                f'{self.source} has no {", ".join(sorted(lacking))} to resume from: '
                f'give its weights as a start instead, --cfg-options load_from={self.source}'
            )
