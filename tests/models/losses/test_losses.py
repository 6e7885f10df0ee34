import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import (
    box_iou,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from frdet.errors import ConfigError
from frdet.models.losses import (
    BinaryCrossEntropyLoss,
    CIoULoss,
    CrossEntropyLoss,
    DIoULoss,
    FocalLoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    Loss,
    SmoothL1Loss,
    box_loss,
)
from frdet.models.task_modules import DeltaXYWHCoder


def test_cross_entropy_by_hand() -> None:
    """Scores 0 and log 3 are probabilities 1/4 and 3/4."""
    pred = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [7.0, -7.0]])
    weight = torch.tensor([True, True, False])
    loss = CrossEntropyLoss(loss_weight=2.0)(pred, torch.tensor([0, 1, 1]), weight, 4)
    # 2 * (log 4 + log 4/3) / 4; the third does not count
    assert loss.item() == pytest.approx(2 * (math.log(4) + math.log(4 / 3)) / 4)


def test_cross_entropy_is_torchs() -> None:
    pred, target = torch.randn(10, 5), torch.randint(5, (10,))
    loss = CrossEntropyLoss()(pred, target, torch.ones(10), 10)
    torch.testing.assert_close(loss, F.cross_entropy(pred, target))


def test_binary_cross_entropy_is_torchs() -> None:
    pred, target, weight = torch.randn(3, 8), torch.rand(3, 8) > 0.5, torch.rand(3, 8) > 0.3
    loss = BinaryCrossEntropyLoss(loss_weight=0.5)(pred, target, weight, 7.0)
    expected = F.binary_cross_entropy_with_logits(pred[weight], target[weight].float(), reduction='sum') / 14
    torch.testing.assert_close(loss, expected)


def test_focal_is_torchvisions() -> None:
    pred, target, weight = torch.randn(3, 8), torch.rand(3, 8) > 0.5, torch.rand(3, 8)
    loss = FocalLoss(alpha=0.3, gamma=1.5, loss_weight=0.5)(pred, target, weight, 7.0)
    expected = (sigmoid_focal_loss(pred, target.float(), 0.3, 1.5) * weight).sum() / 14
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('at_once', [2**17, 10])
def test_focal_loss_of_classes_is_torchvisions(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its derivative too; 10 logits at once are two rows."""
    monkeypatch.setattr('frdet.models.losses.focal._AT_ONCE', {'cpu': at_once})
    logits = (3 * torch.randn(2, 7, 5)).requires_grad_()
    other = logits.detach().clone().requires_grad_()
    labels, weight = torch.randint(-1, 5, (2, 7)), torch.rand(2, 7)
    loss = FocalLoss(alpha=0.3, gamma=1.5, loss_weight=0.5).of_classes(logits, labels, weight)
    target = F.one_hot(labels + 1, 6)[..., 1:].float()
    expected = 0.5 * (sigmoid_focal_loss(other, target, 0.3, 1.5) * weight[..., None]).sum()
    torch.testing.assert_close(loss, expected)
    (7 * loss).backward()
    (7 * expected).backward()
    torch.testing.assert_close(logits.grad, other.grad)


def test_focal_loss_of_large_logits_is_finite() -> None:
    """By hand: a missed class at -50 has loss 50, a wrong one at 50 too; right answers have none."""
    logits = torch.tensor([[-50.0, 50.0], [-50.0, -50.0]], requires_grad=True)
    loss = FocalLoss(alpha=0.25).of_classes(logits, torch.tensor([0, -1]), torch.ones(2))
    loss.backward()
    assert loss.item() == pytest.approx(0.25 * 50 + 0.75 * 50)
    assert logits.grad.tolist() == [pytest.approx([-0.25, 0.75]), pytest.approx([0, 0], abs=1e-20)]


def test_focal_loss_of_classes_with_class_weights() -> None:
    """torchvision's losses, times 2, 3 and 5 where the class is there."""
    logits, labels, weight = torch.randn(20, 3, requires_grad=True), torch.randint(-1, 3, (20,)), torch.rand(20)
    found = FocalLoss(class_weight=[2.0, 3.0, 5.0]).of_classes(logits, labels, weight)
    there = (labels[:, None] == torch.arange(3)).float()
    factor = torch.where(there > 0, torch.tensor([2.0, 3.0, 5.0]), 1.0)
    expected = (sigmoid_focal_loss(logits, there, 0.25, 2.0) * factor * weight[:, None]).sum()
    torch.testing.assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(x, logits)[0] for x in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ConfigError, match='has 2 numbers, expected 3'):
        FocalLoss(class_weight=[1.0, 2.0]).of_classes(logits, labels, weight)


def test_focal_loss_of_classes_in_bfloat16() -> None:
    """The sum in float32; the gradient in the type of the logits."""
    logits = torch.randn(9, 5).bfloat16().requires_grad_()
    labels, weight = torch.randint(-1, 5, (9,)), torch.ones(9)
    loss = FocalLoss().of_classes(logits, labels, weight)
    loss.backward()
    assert loss.dtype == torch.float32 and logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, FocalLoss().of_classes(logits.float(), labels, weight))


def test_loss_of_classes_of_any_loss() -> None:
    """-1 is no class. A subclass of FocalLoss with a loss of its own has that loss."""

    class Counting(FocalLoss):
        def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
            return pred + 10 * target

    logits, weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1.0, 0.5])
    found = Counting(loss_weight=2.0).of_classes(logits, torch.tensor([1, -1]), weight)
    assert found.item() == 2 * ((1 + 2 + 10) + 0.5 * (3 + 4))
    found = BinaryCrossEntropyLoss().of_classes(logits, torch.tensor([1, -1]), weight)
    target = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    expected = F.binary_cross_entropy_with_logits(logits, target, weight[:, None].expand(2, 2), reduction='sum')
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('loss', [BinaryCrossEntropyLoss(), FocalLoss()])
def test_half_precision_logits_are_taken_in_float32(loss: nn.Module) -> None:
    pred = torch.randn(6).bfloat16()
    value = loss(pred, torch.ones(6), torch.ones(6), 6)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(pred.float(), torch.ones(6), torch.ones(6), 6))


def test_class_weight_by_hand() -> None:
    """Scores 0 and log 3 are probabilities 1/4 and 3/4; the divisor is not weighted."""
    pred = torch.tensor([[0.0, math.log(3)]] * 3)
    loss = CrossEntropyLoss(class_weight=[5.0, 0.5])(pred, torch.tensor([0, 1, 1]), torch.tensor([1.0, 1.0, 0.0]), 2)
    # (5 log 4 + 0.5 log 4/3) / 2
    assert loss.item() == pytest.approx((5 * math.log(4) + 0.5 * math.log(4 / 3)) / 2)


@pytest.mark.parametrize(
    ('loss', 'positive', 'negative'),
    [
        (BinaryCrossEntropyLoss(class_weight=[3.0, 7.0]), 1, 1),
        # alpha times (1 - 1/2)^2, and 1 - alpha times the same
        (FocalLoss(alpha=0.25, gamma=2.0, class_weight=[3.0, 7.0]), 1 / 16, 3 / 16),
    ],
)
def test_class_weight_of_positives_by_hand(loss: Loss, positive: float, negative: float) -> None:
    """Logit 0 is probability 1/2, so each cross-entropy is log 2. A positive of each class, and two negatives."""
    found = loss(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.ones(2, 2), 1)
    assert found.item() == pytest.approx((10 * positive + 2 * negative) * math.log(2))


@pytest.mark.parametrize(
    ('loss', 'target', 'expected'),
    [
        (CrossEntropyLoss(class_weight=[1, 2]), torch.zeros(2).long(), 'has 2 numbers, expected 3: .* the background'),
        (BinaryCrossEntropyLoss(class_weight=[1, 2]), torch.zeros(2, 3), 'has 2 numbers, expected 3: one for each cla'),
        (FocalLoss(class_weight=[1, 2]), torch.zeros(2, 3), 'FocalLoss: class_weight has 2 numbers, expected 3'),
    ],
)
def test_class_weight_of_another_length(loss: Loss, target: Tensor, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        loss(torch.zeros(2, 3), target, torch.ones(1), 1)


@pytest.mark.parametrize('kind', [CrossEntropyLoss, BinaryCrossEntropyLoss, FocalLoss])
@pytest.mark.parametrize('number', [-1.0, math.nan])
def test_class_weight_that_is_no_weight(kind: type[Loss], number: float) -> None:
    with pytest.raises(ConfigError, match='expected numbers from 0'):
        kind(class_weight=[1.0, number])


def test_class_weight_is_in_no_checkpoint() -> None:
    assert not CrossEntropyLoss(class_weight=[1.0, 2.0]).state_dict()


BOX_LOSSES = [IoULoss(), IoULoss(mode='square'), IoULoss(mode='log'), GIoULoss(), DIoULoss(), CIoULoss()]
LOSSES = [L1Loss(), SmoothL1Loss(beta=1 / 9), *BOX_LOSSES]


def random_boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2) * 30
    return torch.cat([corner, corner + torch.rand(count, 2) * 30 + 1], dim=1)


def test_l1_by_hand() -> None:
    pred = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 9.0]])
    target = torch.tensor([[0.0, 4.0, 3.0, 4.5], [0.0, 0.0, 0.0, 0.0]])
    # (1 + 2 + 0 + 0.5) * 1 + 9 * 0.5 = 8, times 3, over 4
    assert L1Loss(loss_weight=3.0)(pred, target, torch.tensor([1.0, 0.5]), 4.0).item() == 6.0


def test_smooth_l1_by_hand() -> None:
    pred, zero = torch.tensor([[0.5, -1.0, 2.0, 0.0]]), torch.zeros(1, 4)
    # beta 1: 0.5 * 0.25, 1 - 0.5, 2 - 0.5, 0 -> 0.125 + 0.5 + 1.5
    assert SmoothL1Loss()(pred, zero, torch.ones(1), 1).item() == 2.125
    # beta 2: 0.25 * 0.25, 0.25 * 1, 2 - 1, 0 -> 0.0625 + 0.25 + 1
    assert SmoothL1Loss(beta=2.0)(pred, zero, torch.ones(1), 1).item() == 1.3125
    assert SmoothL1Loss(beta=0.0)(pred, zero, torch.ones(1), 1).item() == 3.5


@pytest.mark.parametrize('beta', [1 / 9, 1.0])
def test_smooth_l1_is_torchs(beta: float) -> None:
    pred, target = torch.randn(2, 20, 4).unbind()
    found = SmoothL1Loss(beta=beta)(pred, target, torch.ones(20), 20)
    torch.testing.assert_close(found, F.smooth_l1_loss(pred, target, beta=beta, reduction='sum') / 20)


@pytest.mark.parametrize(
    ('loss', 'theirs'),
    [
        (GIoULoss(), generalized_box_iou_loss),
        (DIoULoss(), distance_box_iou_loss),
        (CIoULoss(), complete_box_iou_loss),
    ],
)
def test_box_losses_are_torchvisions_with_gradients(loss: Loss, theirs: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Most pairs overlap, some do not."""
    pred, target, weight = random_boxes(50).double(), random_boxes(50).double(), torch.rand(50).double()
    assert 5 < box_iou(pred, target).diagonal().eq(0).sum() < 45
    pred.requires_grad_()
    found = loss(pred, target, weight, 7)
    expected = (theirs(pred, target) * weight).sum() / 7
    torch.testing.assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(x, pred) for x in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


def test_distance_by_hand() -> None:
    """Two squares of side 2 whose centres are 4 apart, in an enclosing box of 6 x 2."""
    pred, target = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[4.0, 0.0, 6.0, 2.0]])
    # 1 - 0 + 4^2 / (6^2 + 2^2); the same shapes have v = 0
    assert DIoULoss()(pred, target, torch.ones(1), 1).item() == pytest.approx(1.4)
    assert CIoULoss()(pred, target, torch.ones(1), 1).item() == pytest.approx(1.4)


def test_aspect_by_hand() -> None:
    """A square in the middle of a box of 2 x 1 turned: centres agree, IoU 1/2."""
    pred, target = torch.tensor([[0.5, 0.0, 1.5, 1.0]]), torch.tensor([[0.0, 0.0, 2.0, 1.0]])
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    # 1 - 1/2 + 0 + v * v / (1/2 + v)
    assert CIoULoss()(pred, target, torch.ones(1), 1).item() == pytest.approx(0.5 + v * v / (0.5 + v))


@pytest.mark.parametrize(('mode', 'expected'), [('linear', 0.75), ('square', 0.9375), ('log', math.log(4))])
def test_iou_modes_by_hand(mode: str, expected: float) -> None:
    pred, target = torch.tensor([[0.0, 0.0, 1.0, 2.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]])  # IoU 1/4
    assert IoULoss(mode=mode)(pred, target, torch.ones(1), 1).item() == pytest.approx(expected)


def test_log_of_no_overlap_is_finite() -> None:
    pred, target = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[5.0, 0.0, 6.0, 1.0]])
    assert IoULoss(mode='log')(pred, target, torch.ones(1), 1).item() == pytest.approx(math.log(1e6))


def test_unknown_iou_mode() -> None:
    with pytest.raises(ConfigError, match="mode is 'cubic', expected 'linear', 'square' or 'log'"):
        IoULoss(mode='cubic')


def test_giou_by_hand() -> None:
    pred, target = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[4.0, 0.0, 6.0, 2.0]])
    # No overlap: 1 - 0 + (hull 12 - union 8) / 12
    assert GIoULoss()(pred, target, torch.ones(1), 1).item() == pytest.approx(1 + 4 / 12)


def test_iou_is_one_minus_torchvisions() -> None:
    pred, target = random_boxes(30), random_boxes(30)
    expected = (1 - box_iou(pred, target).diagonal()).sum() / 30
    torch.testing.assert_close(IoULoss()(pred, target, torch.ones(30), 30), expected)


def test_interface_says_what_is_missing() -> None:
    with pytest.raises(TypeError, match='Loss must define elementwise'):
        Loss()(torch.zeros(1, 4), torch.zeros(1, 4), torch.ones(1), 1)


@pytest.mark.parametrize('loss', LOSSES)
def test_perfect_deltas_cost_nothing(loss: Loss) -> None:
    coder = DeltaXYWHCoder(weights=(10.0, 10.0, 5.0, 5.0))
    boxes, targets = random_boxes(9), random_boxes(9)
    deltas = coder.encode(boxes, targets)
    value = box_loss(loss, coder, deltas, boxes, targets, torch.ones(9, dtype=torch.bool), 9)
    assert value.item() == pytest.approx(0, abs=1e-5)


def test_box_loss_on_deltas_by_hand() -> None:
    boxes, targets = torch.tensor([[[0.0, 0.0, 10.0, 10.0]] * 2]), torch.tensor([[[5.0, 0.0, 25.0, 10.0]] * 2])
    deltas = torch.tensor([[[0.0, 0.0, 0.0, 0.5], [9.0, 9.0, 9.0, 9.0]]])
    positive = torch.tensor([[True, False]])
    # target deltas: (15 - 5) / 10 = 1, 0, log 2, 0 -> |1| + 0 + log 2 + 0.5, over 4
    found = box_loss(L1Loss(), DeltaXYWHCoder(), deltas, boxes, targets, positive, 4)
    assert found.item() == pytest.approx((1.5 + math.log(2)) / 4)


def test_box_loss_is_weighted_box_by_box() -> None:
    """Losses of 2 and 6 with weights 0.5 and 0.1, and one that is not positive."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3)
    deltas = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 6.0, 0.0, 0.0], [9.0, 9.0, 9.0, 9.0]])
    positive, weight = torch.tensor([True, True, False]), torch.tensor([0.5, 0.1, 3.0])
    found = box_loss(L1Loss(), DeltaXYWHCoder(), deltas, boxes, boxes, positive, 2.0, weight)
    assert found.item() == pytest.approx((0.5 * 2 + 0.1 * 6) / 2)


def test_box_loss_on_boxes_by_hand() -> None:
    boxes, targets = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 20.0, 10.0]])
    deltas = torch.tensor([[0.5, 0.0, 0.0, 0.0]])  # moves the box to (5, 0, 15, 10): inside, half the target
    found = box_loss(GIoULoss(), DeltaXYWHCoder(), deltas, boxes, targets, torch.tensor([True]), 1)
    assert found.item() == pytest.approx(0.5)


@pytest.mark.parametrize('loss', LOSSES)
def test_padding_costs_nothing_and_has_no_gradient(loss: nn.Module) -> None:
    """Boxes and targets without a side, and wild deltas, in places that are not positive."""
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 9.0], [0.0, 0.0, 8.0, 8.0]])
    targets = torch.tensor([[1.0, 1.0, 8.0, 8.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    deltas = torch.tensor([[0.1] * 4, [100.0] * 4, [-100.0] * 4, [5.0] * 4], requires_grad=True)
    positive = torch.tensor([True, False, False, False])
    value = box_loss(loss, DeltaXYWHCoder(), deltas, boxes, targets, positive, 1)
    alone = box_loss(loss, DeltaXYWHCoder(), deltas[:1], boxes[:1], targets[:1], positive[:1], 1)
    torch.testing.assert_close(value, alone)
    value.backward()
    assert deltas.grad[1:].eq(0).all()
    assert deltas.grad.isfinite().all() and deltas.grad[0].ne(0).any()


@pytest.mark.parametrize('loss', LOSSES)
def test_nothing_positive_is_zero_with_zero_gradients(loss: nn.Module) -> None:
    deltas = torch.randn(5, 4, requires_grad=True)
    value = box_loss(
        loss, DeltaXYWHCoder(), deltas, torch.zeros(5, 4), torch.zeros(5, 4), torch.zeros(5, dtype=torch.bool), 1
    )
    value.backward()
    assert value.item() == 0
    assert deltas.grad.eq(0).all()


# CIoU compares the angles 0 and pi / 4: v = 1/4, and v^2 / (1 + v) = 1/20.
@pytest.mark.parametrize(
    ('loss', 'expected'), [(IoULoss(), 1.0), (GIoULoss(), 1.0), (DIoULoss(), 1.0), (CIoULoss(), 1.05)]
)
def test_a_box_that_collapses_has_finite_gradients(loss: nn.Module, expected: float) -> None:
    deltas = torch.tensor([[0.0, 0.0, -200.0, -200.0]], requires_grad=True)  # exp(-200) is 0 in float32
    box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    value = box_loss(loss, DeltaXYWHCoder(), deltas, box, box, torch.tensor([True]), 1)
    value.backward()
    assert value.item() == pytest.approx(expected, abs=1e-5)
    assert deltas.grad.isfinite().all()
