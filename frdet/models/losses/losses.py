"""The losses on class scores, objectness and boxes. Some losses on boxes compare deltas, others the decoded boxes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.models.losses.focal import focal_sum
from frdet.registry import LOSSES
from frdet.structures import box_area


class Loss(nn.Module):
    """Interface of the losses. A loss of your own overrides ``elementwise``.

    Args:
        loss_weight: factor of the result.
    """

    #: Of a loss on boxes: whether ``pred`` and ``target`` are boxes xyxy in pixels instead of deltas.
    takes_boxes = False

    def __init__(self, *, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor | float) -> Tensor:
        """Sum of ``weight`` (...) times the ``elementwise`` losses (...), over ``avg_factor``."""
        return self.loss_weight * (self.elementwise(pred, target) * weight).sum() / avg_factor

    def of_classes(self, logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """Sum of the losses of K independent classes, for a loss on logits that has targets of 0 and 1.

        Args:
            logits: (..., K).
            labels: (...) int64, the class whose target is 1; -1 where no class has it.
            weight: (...), factor of the K losses.
        """
        classes = torch.arange(logits.shape[-1], device=logits.device)
        return self(logits, labels[..., None] == classes, weight[..., None], 1.0)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of every sample. On boxes: (..., 4) and (..., 4) -> (...)."""
        raise TypeError(f'{type(self).__name__} must define elementwise(pred, target)')


@LOSSES.register_module()
class CrossEntropyLoss(Loss):
    """Softmax cross-entropy."""

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Scores (n, C) and classes (n,) -> (n,)."""
        return F.cross_entropy(pred.float(), target, reduction='none')


@LOSSES.register_module()
class BinaryCrossEntropyLoss(Loss):
    """Cross-entropy of a sigmoid."""

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Logits and targets in 0..1, both (...) -> (...)."""
        return F.binary_cross_entropy_with_logits(pred.float(), target.float(), reduction='none')


@LOSSES.register_module()
class FocalLoss(Loss):
    """Sigmoid cross-entropy with less weight where the answer is already right (Lin et al. 2017, equation 5).

    Args:
        alpha: weight of positives; negatives have 1 - alpha.
        gamma: how fast the weight of easy samples falls.
        loss_weight: factor of the result.
    """

    def __init__(self, *, alpha: float = 0.25, gamma: float = 2.0, loss_weight: float = 1.0):
        super().__init__(loss_weight=loss_weight)
        self.alpha = alpha
        self.gamma = gamma

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``BinaryCrossEntropyLoss``."""
        target = target.float()
        probability = pred.float().sigmoid()
        miss = probability + target - 2 * probability * target
        balance = self.alpha * target + (1 - self.alpha) * (1 - target)
        return F.binary_cross_entropy_with_logits(pred.float(), target, reduction='none') * balance * miss**self.gamma

    def of_classes(self, logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """See ``Loss.of_classes``. The targets are not written out, because nearly all of them are 0."""
        if type(self).elementwise is not FocalLoss.elementwise:  # a subclass with a loss of its own
            return super().of_classes(logits, labels, weight)
        return self.loss_weight * focal_sum(logits, labels, weight, self.alpha, self.gamma)


@LOSSES.register_module()
class L1Loss(Loss):
    """Sum of the absolute differences of the four deltas."""

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``Loss``."""
        return (pred - target).abs().sum(dim=-1)


@LOSSES.register_module()
class SmoothL1Loss(Loss):
    """0.5 d^2 / beta below ``beta``, d - 0.5 beta above, summed over the four deltas (Fast R-CNN, equation 3).

    Args:
        beta: the difference where the square turns into a line; 0 gives L1.
        loss_weight: factor of the result.
    """

    def __init__(self, *, beta: float = 1.0, loss_weight: float = 1.0):
        super().__init__(loss_weight=loss_weight)
        self.beta = beta

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``Loss``."""
        d = (pred - target).abs()
        if self.beta > 0:
            d = torch.where(d < self.beta, 0.5 * d * d / self.beta, d - 0.5 * self.beta)
        return d.sum(dim=-1)


@LOSSES.register_module()
class IoULoss(Loss):
    """1 - IoU of the decoded boxes, the linear form of Yu et al. 2016."""

    takes_boxes = True

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``Loss``."""
        inter, union = _overlap(pred, target)
        return 1 - inter / union


@LOSSES.register_module()
class GIoULoss(Loss):
    """1 - IoU + the share of the enclosing box that neither box covers (Rezatofighi et al. 2019, algorithm 1)."""

    takes_boxes = True

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``Loss``."""
        inter, union = _overlap(pred, target)
        lt = torch.minimum(pred[..., :2], target[..., :2])
        rb = torch.maximum(pred[..., 2:], target[..., 2:])
        hull = (rb - lt).prod(dim=-1).clamp(min=1e-7)
        return 1 - inter / union + (hull - union) / hull


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Areas of intersection and union."""
    lt = torch.maximum(a[..., :2], b[..., :2])
    rb = torch.minimum(a[..., 2:], b[..., 2:])
    inter = (rb - lt).clamp(min=0).prod(dim=-1)
    return inter, (box_area(a) + box_area(b) - inter).clamp(min=1e-7)


def box_loss(
    loss: Loss,
    coder: Any,
    deltas: Tensor,
    boxes: Tensor,
    targets: Tensor,
    positive: Tensor,
    avg_factor: Tensor | float,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """Loss of ``deltas`` on ``boxes`` that must give ``targets``, all (..., 4), where ``positive`` (...) is True.

    ``weight`` (...) multiplies the loss of each box.
    """
    deltas = deltas.float()
    # Other boxes and targets may be padding: a legal box keeps the numbers finite, and their weight is 0.
    unit = (torch.arange(4, device=boxes.device) > 1).to(boxes)  # (0, 0, 1, 1), made on the device
    boxes = torch.where(positive[..., None], boxes, unit)
    targets = torch.where(positive[..., None], targets, unit)
    weight = positive * weight
    if loss.takes_boxes:
        return loss(coder.decode(boxes, deltas), targets, weight, avg_factor)
    return loss(deltas, coder.encode(boxes, targets), weight, avg_factor)
