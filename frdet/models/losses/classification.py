"""Losses on class scores and objectness."""

from torch import Tensor, nn
from torch.nn import functional as F

from frdet.registry import LOSSES


@LOSSES.register_module()
class CrossEntropyLoss(nn.Module):
    """Softmax cross-entropy.

    Args:
        loss_weight: factor of the result.
    """

    def __init__(self, *, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor | float) -> Tensor:
        """Sum of ``weight`` (n,) times the loss of ``pred`` (n, C) at ``target`` (n,), over ``avg_factor``."""
        loss = F.cross_entropy(pred.float(), target, reduction='none')
        return self.loss_weight * (loss * weight).sum() / avg_factor


@LOSSES.register_module()
class BinaryCrossEntropyLoss(nn.Module):
    """Cross-entropy of a sigmoid.

    Args:
        loss_weight: factor of the result.
    """

    def __init__(self, *, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor | float) -> Tensor:
        """Sum of ``weight`` times the loss of logits ``pred`` at ``target`` in 0..1, all (...), over ``avg_factor``."""
        loss = F.binary_cross_entropy_with_logits(pred.float(), target.float(), reduction='none')
        return self.loss_weight * (loss * weight).sum() / avg_factor


@LOSSES.register_module()
class FocalLoss(nn.Module):
    """Sigmoid cross-entropy with less weight where the answer is already right (Lin et al. 2017, equation 5).

    Args:
        alpha: weight of positives; negatives have 1 - alpha.
        gamma: how fast the weight of easy samples falls.
        loss_weight: factor of the result.
    """

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0, loss_weight: float = 1.0):
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor | float) -> Tensor:
        """See ``BinaryCrossEntropyLoss``."""
        target = target.float()
        probability = pred.float().sigmoid()
        miss = probability + target - 2 * probability * target
        balance = self.alpha * target + (1 - self.alpha) * (1 - target)
        loss = F.binary_cross_entropy_with_logits(pred.float(), target, reduction='none')
        return self.loss_weight * (loss * balance * miss**self.gamma * weight).sum() / avg_factor
