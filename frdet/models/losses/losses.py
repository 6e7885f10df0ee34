"""The losses on class scores, objectness and boxes. Some losses on boxes compare deltas, others the decoded boxes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.moved import moved_names
from frdet.registry import LOSSES
from frdet.structures import box_area

__getattr__ = moved_names(__name__, {'FocalLoss': 'frdet.models.losses:FocalLoss'})


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


def keep_class_weight(loss: Loss, numbers: Sequence[float] | None) -> None:
    """Keep a loss's numbers as the buffer ``class_weight``, which moves with it and is in no checkpoint."""
    if numbers is not None and not all(math.isfinite(one) and one >= 0 for one in numbers):
        raise ConfigError(f'{type(loss).__name__}: class_weight is {numbers}, expected numbers from 0 up')
    weight = None if numbers is None else torch.tensor(numbers, dtype=torch.float32)
    loss.register_buffer('class_weight', weight, persistent=False)


def class_weight_of(loss: Loss, scores: int, each: str) -> Tensor | None:
    """``loss.class_weight``, if it has a number for each of the scores."""
    weight = loss.class_weight
    if isinstance(weight, Tensor) and len(weight) != scores:
        raise ConfigError(
            f'{type(loss).__name__}: class_weight has {len(weight)} numbers, expected {scores}: one for {each}'
        )
    return weight if isinstance(weight, Tensor) else None


@LOSSES.register_module()
class CrossEntropyLoss(Loss):
    """Softmax cross-entropy.

    Args:
        class_weight: factor of the loss of a sample, by its class: K + 1 numbers, the background last. The divisor
            stays the number of samples, as in MMDetection.
        loss_weight: factor of the result.
    """

    def __init__(self, *, class_weight: Sequence[float] | None = None, loss_weight: float = 1.0):
        super().__init__(loss_weight=loss_weight)
        keep_class_weight(self, class_weight)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Scores (n, C) and classes (n,) -> (n,)."""
        weight = class_weight_of(self, pred.shape[-1], 'each class and one for the background, which is last')
        return F.cross_entropy(pred.float(), target, weight, reduction='none')


@LOSSES.register_module()
class BinaryCrossEntropyLoss(Loss):
    """Cross-entropy of a sigmoid.

    Args:
        class_weight: factor of the loss of positives, by their class, which is the last dimension: K numbers. Negatives
            keep the factor 1, as in MMDetection's ``CrossEntropyLoss`` with ``use_sigmoid``. Objectness has no classes.
        loss_weight: factor of the result.
    """

    def __init__(self, *, class_weight: Sequence[float] | None = None, loss_weight: float = 1.0):
        super().__init__(loss_weight=loss_weight)
        keep_class_weight(self, class_weight)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Logits and targets in 0..1, both (...) -> (...)."""
        weight = class_weight_of(self, pred.shape[-1], 'each class')
        return F.binary_cross_entropy_with_logits(pred.float(), target.float(), pos_weight=weight, reduction='none')


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
    """A loss of the IoU of the decoded boxes. MMDetection reports +0.5 AP against L1 (Faster R-CNN R50-FPN, weight 10).

    Args:
        mode: 'linear' 1 - IoU, 'square' 1 - IoU^2, 'log' -log(IoU) of Yu et al. 2016, which counts an IoU below 1e-6 as
            1e-6 (there the gradient is 0). MMDetection's default is 'log'.
        loss_weight: factor of the result.
    """

    takes_boxes = True

    def __init__(self, *, mode: str = 'linear', loss_weight: float = 1.0):
        super().__init__(loss_weight=loss_weight)
        if mode not in ('linear', 'square', 'log'):
            raise ConfigError(f"IoULoss: mode is {mode!r}, expected 'linear', 'square' or 'log'")
        self.mode = mode

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``Loss``."""
        inter, union = _overlap(pred, target)
        iou = inter / union
        if self.mode == 'log':
            return -iou.clamp(min=1e-6).log()
        return 1 - (iou if self.mode == 'linear' else iou**2)


@LOSSES.register_module()
class GIoULoss(Loss):
    """1 - IoU + the share of the enclosing box that neither box covers (Rezatofighi et al. 2019, algorithm 1).

    MMDetection reports +0.2 AP against L1 (Faster R-CNN R50-FPN, weight 10).
    """

    takes_boxes = True

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``Loss``."""
        inter, union = _overlap(pred, target)
        hull = _hull_sides(pred, target).prod(dim=-1).clamp(min=1e-7)
        return 1 - inter / union + (hull - union) / hull


@LOSSES.register_module()
class DIoULoss(Loss):
    """1 - IoU + the squared distance of the centres over that of the enclosing box's corners (Zheng et al. 2020).

    Equation 7 of "Distance-IoU Loss". Its table 3 reports +0.2 AP against IoULoss, and for ``CIoULoss`` +0.7 (Faster
    R-CNN R50-FPN, 'linear', weight 12).
    """

    takes_boxes = True

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``Loss``."""
        return _distance_iou_loss(pred, target)[0]


@LOSSES.register_module()
class CIoULoss(Loss):
    """``DIoULoss`` + alpha v, where v compares the aspect ratios (Zheng et al. 2020, equations 8 to 11).

    v = 4 / pi^2 (atan(w' / h') - atan(w / h))^2 and alpha = v / (1 - IoU + v), which has no gradient.
    """

    takes_boxes = True

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """See ``Loss``."""
        loss, iou = _distance_iou_loss(pred, target)
        angle, target_angle = (
            torch.atan((x[..., 2] - x[..., 0]) / (x[..., 3] - x[..., 1]).clamp(min=1e-7)) for x in (pred, target)
        )
        v = (2 / math.pi * (target_angle - angle)) ** 2
        with torch.no_grad():
            alpha = v / (1 - iou + v + 1e-7)
        return loss + alpha * v


def _distance_iou_loss(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of ``DIoULoss`` and the IoU."""
    inter, union = _overlap(pred, target)
    iou = inter / union
    diagonal = _hull_sides(pred, target).square().sum(dim=-1).clamp(min=1e-7)
    moved = (pred[..., :2] + pred[..., 2:] - target[..., :2] - target[..., 2:]) / 2
    return 1 - iou + moved.square().sum(dim=-1) / diagonal, iou


def _hull_sides(a: Tensor, b: Tensor) -> Tensor:
    """Width and height (..., 2) of the box that encloses both."""
    return torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])


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
