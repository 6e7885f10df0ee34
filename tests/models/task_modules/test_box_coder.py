import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from frdet.models.task_modules import DeltaXYWHCoder

RCNN_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2) * 100
    return torch.cat([corner, corner + torch.rand(count, 2) * 80 + 1], dim=1)


def test_encode_by_hand() -> None:
    # Box: centre (20, 30), 40 wide, 20 high. Target: centre (30, 25), 80 wide, 10 high.
    box, target = torch.tensor([0.0, 20.0, 40.0, 40.0]), torch.tensor([-10.0, 20.0, 70.0, 30.0])
    # (30 - 20) / 40, (25 - 30) / 20, log(80 / 40), log(10 / 20)
    expected = torch.tensor([0.25, -0.25, math.log(2), -math.log(2)])
    torch.testing.assert_close(DeltaXYWHCoder().encode(box, target), expected)
    weighted = DeltaXYWHCoder(weights=RCNN_WEIGHTS).encode(box, target)
    torch.testing.assert_close(weighted, expected * torch.tensor(RCNN_WEIGHTS))


def test_decode_by_hand() -> None:
    box = torch.tensor([0.0, 20.0, 40.0, 40.0])
    deltas = torch.tensor([0.25, -0.25, math.log(2), -math.log(2)])
    torch.testing.assert_close(DeltaXYWHCoder().decode(box, deltas), torch.tensor([-10.0, 20.0, 70.0, 30.0]))


@pytest.mark.parametrize('weights', [(1.0, 1.0, 1.0, 1.0), RCNN_WEIGHTS])
def test_is_torchvisions(weights: tuple[float, ...]) -> None:
    boxes, targets = random_boxes(50), random_boxes(50)
    coder, reference = DeltaXYWHCoder(weights=weights), BoxCoder(weights)
    torch.testing.assert_close(
        coder.encode(boxes, targets), reference.encode_single(targets, boxes), atol=1e-5, rtol=1e-5
    )
    deltas = torch.randn(50, 7, 4) * 8  # dw and dh reach the clamp
    expected = reference.decode_single(deltas.flatten(1), boxes).view(50, 7, 4)
    torch.testing.assert_close(coder.decode(boxes[:, None], deltas), expected, atol=1e-2, rtol=1e-5)


def test_round_trip() -> None:
    boxes, targets = random_boxes(200), random_boxes(200)
    coder = DeltaXYWHCoder(weights=RCNN_WEIGHTS)
    torch.testing.assert_close(coder.decode(boxes, coder.encode(boxes, targets)), targets, atol=1e-3, rtol=0)


def test_sides_grow_at_most_by_the_ratio() -> None:
    box = torch.tensor([0.0, 0.0, 16.0, 16.0])
    deltas = torch.tensor([0.0, 0.0, 1e6, 50.0])
    # 16 * 1000 / 16 = 1000 wide and high around (8, 8).
    torch.testing.assert_close(
        DeltaXYWHCoder().decode(box, deltas), torch.tensor([-492.0, -492.0, 508.0, 508.0]), atol=1e-2, rtol=0
    )
    # 16 * 2 = 32.
    torch.testing.assert_close(
        DeltaXYWHCoder(max_ratio=2.0).decode(box, deltas), torch.tensor([-8.0, -8.0, 24.0, 24.0])
    )


def test_shrinking_is_limited_only_if_asked() -> None:
    """Of 1000 pixels, a log ratio of -5 leaves 1000 * exp(-5) = 6.74; the limit is a 62.5th, 16 pixels."""
    box, deltas = torch.tensor([0.0, 0.0, 1000.0, 1000.0]), torch.tensor([0.0, 0.0, -5.0, -4.0])
    free = DeltaXYWHCoder().decode(box, deltas)
    limited = DeltaXYWHCoder(limit_shrinking=True).decode(box, deltas)
    assert (free[2:] - free[:2]).tolist() == pytest.approx([1000 * math.exp(-5), 1000 * math.exp(-4)], abs=1e-3)
    assert (limited[2:] - limited[:2]).tolist() == pytest.approx([16.0, 1000 * math.exp(-4)], abs=1e-3)


def test_clamp_is_on_the_weighted_delta() -> None:
    """A delta of 10 with weight 5 is a log ratio of 2, below log(1000 / 16) = 4.1: not clamped."""
    decoded = DeltaXYWHCoder(weights=RCNN_WEIGHTS).decode(
        torch.tensor([-0.5, -0.5, 0.5, 0.5]), torch.tensor([0.0, 0.0, 10.0, 10.0])
    )
    torch.testing.assert_close(decoded[2:] - decoded[:2], torch.full((2,), math.exp(2)))


def test_leading_shapes_broadcast() -> None:
    coder = DeltaXYWHCoder()
    boxes, deltas = random_boxes(6), torch.randn(2, 6, 4) * 0.1
    decoded = coder.decode(boxes, deltas)
    assert decoded.shape == (2, 6, 4)
    torch.testing.assert_close(decoded[1], coder.decode(boxes, deltas[1]))
    assert coder.decode(boxes[:0], deltas[0, :0]).shape == (0, 4)
