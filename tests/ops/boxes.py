"""Boxes and devices for the operators' tests."""

import torch
from torch import Tensor

DEVICES = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]


def random_boxes(count: int, low: float = 4.0, high: float = 60.0, size: float = 200.0) -> Tensor:
    """(count, 4) float32, sides of ``low`` to ``high`` in a square of ``size``."""
    sides = low + (high - low) * torch.rand(count, 2)
    corner = torch.rand(count, 2) * (size - sides)
    return torch.cat([corner, corner + sides], dim=1)


def random_rois(count: int, images: int, **where: float) -> Tensor:
    """(count, 5), some reaching out of the square."""
    boxes = random_boxes(count, **where) + 30 * torch.randn(count, 1)
    return torch.cat([torch.randint(images, (count, 1)).float(), boxes], dim=1)
