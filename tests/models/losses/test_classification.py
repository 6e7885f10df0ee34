import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from frdet.models.losses import BinaryCrossEntropyLoss, CrossEntropyLoss, FocalLoss


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


@pytest.mark.parametrize('loss', [BinaryCrossEntropyLoss(), FocalLoss()])
def test_half_precision_logits_are_taken_in_float32(loss: nn.Module) -> None:
    pred = torch.randn(6).bfloat16()
    value = loss(pred, torch.ones(6), torch.ones(6), 6)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(pred.float(), torch.ones(6), torch.ones(6), 6))
