"""The focal loss; of many logits with few positives it is computed in little memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from frdet.models.losses.losses import Loss, class_weight_of, keep_class_weight
from frdet.registry import LOSSES

#: Logits that are computed at once: few on a CPU, so that they stay in its cache.
_AT_ONCE = {'cpu': 2**17}
_AT_ONCE_ON_GPU = 2**25


@LOSSES.register_module()
class FocalLoss(Loss):
    """Sigmoid cross-entropy with less weight where the answer is already right (Lin et al. 2017, equation 5).

    Args:
        alpha: weight of positives; negatives have 1 - alpha.
        gamma: how fast the weight of easy samples falls.
        class_weight: factor of the loss of positives; see ``BinaryCrossEntropyLoss``.
        loss_weight: factor of the result.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.25,
        gamma: float = 2.0,
        class_weight: Sequence[float] | None = None,
        loss_weight: float = 1.0,
    ):
        super().__init__(loss_weight=loss_weight)
        self.alpha = alpha
        self.gamma = gamma
        keep_class_weight(self, class_weight)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``BinaryCrossEntropyLoss``."""
        target = target.float()
        probability = pred.float().sigmoid()
        miss = probability + target - 2 * probability * target
        balance = self.alpha * target + (1 - self.alpha) * (1 - target)
        weight = class_weight_of(self, pred.shape[-1], 'each class')
        cross_entropy = F.binary_cross_entropy_with_logits(pred.float(), target, pos_weight=weight, reduction='none')
        return cross_entropy * balance * miss**self.gamma

    def of_classes(self, logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """See ``Loss.of_classes``. The targets are not written out, because nearly all of them are 0."""
        if type(self).elementwise is not FocalLoss.elementwise:  # a subclass with a loss of its own
            return super().of_classes(logits, labels, weight)
        own = class_weight_of(self, logits.shape[-1], 'each class')
        return self.loss_weight * focal_sum(logits, labels, weight, self.alpha, self.gamma, own)


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
