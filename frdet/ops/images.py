"""Operators on single images."""

import torch
from torch import Tensor

from frdet.ops import fallback, loading


def enlarge(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resizing to the same or a larger size. The result equals Pillow's bit for bit.

    Args:
        image: (H, W, 3) uint8.
        height, width: at least H and W.

    Returns:
        (3, height, width) uint8, contiguous.

    Raises:
        RuntimeError: the image has another shape or dtype, or would shrink.
    """
    if loading.is_native(image):
        return torch.ops.frdet.enlarge(image, height, width)
    return fallback.enlarge(image, height, width)
