"""The focal loss of many logits with few positives, in little memory."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Logits that are computed at once: few on a CPU, so that they stay in its cache.
_AT_ONCE = {'cpu': 2**17}
_AT_ONCE_ON_GPU = 2**25


def focal_sum(
    logits: Tensor, labels: Tensor, weight: Tensor, alpha: float, gamma: float, class_weight: Tensor | None = None
) -> Tensor:
    """Sum over all classes of the sigmoid focal loss, times ``weight``. See ``FocalLoss`` and ``Loss.of_classes``.

    The derivative is computed beside the loss, piece by piece in float32. Nothing of the size of the logits is kept but
    their gradient.
    """
    count = logits.shape[-1]
    labels = labels.reshape(-1)
    # The weight of the class that is there.
    of_own = alpha if class_weight is None else alpha * class_weight[labels.clamp(min=0)]
    return _FocalSum.apply(logits.reshape(-1, count), labels, weight.reshape(-1).float(), alpha, of_own, gamma)


class _FocalSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor,
        alpha: float,
        of_own: Tensor | float,
        gamma: float,
    ) -> Tensor:
        num_classes = logits.shape[1]
        rows = max(_AT_ONCE.get(logits.device.type, _AT_ONCE_ON_GPU) // num_classes, 1)
        gradient = torch.empty_like(logits)
        total = weight.new_zeros(())
        # Every class as if it were absent.
        for x, out, factor in zip(*(t.split(rows) for t in (logits, gradient, weight * (1 - alpha))), strict=True):
            loss, slope = _miss(x.float(), gamma)
            total += loss.sum(dim=1).dot(factor)
            torch.mul(slope, factor[:, None], out=slope)
            out.copy_(slope)
        # The class that is there: its own loss instead. The loss of a logit x is then that of an absent class at -x.
        there = labels >= 0
        index = labels.clamp(min=0)[:, None]
        x = logits.gather(1, index).float().squeeze(1)
        (present, rise), (absent, fall) = _miss(-x, gamma), _miss(x, gamma)
        factor = weight * there
        total += (factor * (of_own * present - (1 - alpha) * absent)).sum()
        own = torch.where(there, -of_own * rise, (1 - alpha) * fall) * weight
        gradient.scatter_(1, index, own[:, None].to(gradient.dtype))
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None, None, None, None, None


def _miss(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """p^gamma * -log(1 - p) for p = sigmoid(x), the loss of a class that is absent, and its derivative."""
    p, entropy = x.sigmoid(), F.softplus(x)
    scale = p**gamma
    return scale * entropy, scale * (gamma * (1 - p) * entropy + p)
