"""Training stops where a loss is no number."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.errors import UserError
from frdet.registry import HOOKS


class NonFiniteLossError(UserError):
    """A loss became NaN or infinite."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stops training at a loss that is NaN or infinite, and names the losses and the images of the batch.

    Args:
        interval: iterations from one check to the next.
    """

    def __init__(self, *, interval: int = 1):
        self.interval = interval

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Raise NonFiniteLossError if a figure with ``loss`` in its name is not finite."""
        losses = {name: torch.as_tensor(value).detach() for name, value in (outputs or {}).items() if 'loss' in name}
        if not losses or not self.every_n_train_iters(runner, self.interval):
            return
        # One transfer from the device for all of them.
        values = torch.stack([value.float().mean() for value in losses.values()]).tolist()
        bad = {name: v for name, v in zip(losses, values, strict=True) if v != v or v in (float('inf'), -float('inf'))}
        if not bad:
            return
        parts = {name: v for name, v in bad.items() if name != 'loss'} or bad
        rate = runner.optim_wrapper.get_lr()['lr'][0]
        raise NonFiniteLossError(
            f'Training stopped in iteration {runner.iter + 1} (epoch {runner.epoch + 1}): '
            f'{", ".join(f"{name} is {v}" for name, v in parts.items())}. Images: {_images(data_batch)}.\n'
            f'Check their boxes; or lower the learning rate (now {rate:.3g}), lengthen the warm-up, or clip gradients '
            'with optim_wrapper.clip_grad'
        )


def _images(data_batch: Any) -> str:
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    names = [f'{s.get("img_id")} ({s.get("img_path")})' if s.get('img_path') else str(s.get('img_id')) for s in samples]
    return ', '.join(names) or 'unknown'
