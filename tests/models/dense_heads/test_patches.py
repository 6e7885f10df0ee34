import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from frdet.models.dense_heads.rpn_head import gather_patches

SHAPES = ((5, 7), (3, 4), (1, 2))
CELLS = sum(h * w for h, w in SHAPES)


def make_features(memory_format: torch.memory_format = torch.channels_last) -> list[Tensor]:
    return [
        torch.randn(2, 3, h, w, dtype=torch.float64).to(memory_format=memory_format).requires_grad_() for h, w in SHAPES
    ]


def unfolded(features: list[Tensor]) -> Tensor:
    """(B, cells, 9 * C) of every cell: torch's unfold gives (channel, row, column) order."""
    levels = [
        F.unfold(f, 3, padding=1).transpose(1, 2).unflatten(2, (3, 9)).transpose(2, 3).flatten(2) for f in features
    ]
    return torch.cat(levels, dim=1)


@pytest.mark.parametrize('memory_format', [torch.channels_last, torch.contiguous_format])
def test_every_cell_is_unfolds(memory_format: torch.memory_format) -> None:
    features = make_features(memory_format)
    cells = torch.stack([torch.randperm(CELLS), torch.randperm(CELLS)])
    found = gather_patches(features, cells)
    expected = unfolded(features).gather(1, cells[..., None].expand(-1, -1, 27))
    assert torch.equal(found, expected)


def test_gradients_are_unfolds_with_cells_chosen_twice() -> None:
    features = make_features()
    cells = torch.tensor([[0, 0, 34, 35, 48, 8], [46, 47, 47, 1, 2, 3]])
    weight = torch.randn(2, 6, 27, dtype=torch.float64)
    found = torch.autograd.grad((gather_patches(features, cells) * weight).sum(), features)
    chosen = unfolded(features).gather(1, cells[..., None].expand(-1, -1, 27))
    expected = torch.autograd.grad((chosen * weight).sum(), features)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
