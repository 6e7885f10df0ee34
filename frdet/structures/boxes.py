"""Functions on boxes: tensors of shape (..., 4) holding (x1, y1, x2, y2) in pixels, continuous (width = x2 - x1)."""

import torch
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Area in square pixels, (..., 4) -> (...). It is negative where exactly one side is."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of ``a`` (..., N, 4) with every box of ``b`` (..., M, 4): (..., N, M).

    Two boxes that do not overlap, empty boxes included, have IoU 0.
    """
    lt = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    rb = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    side = (rb - lt).clamp(min=0)
    inter = side[..., 0] * side[..., 1]
    union = box_area(a)[..., :, None] + box_area(b)[..., None, :] - inter
    return torch.where(inter > 0, inter / union, torch.zeros_like(inter))


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (..., 4) cut to images of ``sizes`` (..., 2) as (height, width); the leading shapes broadcast."""
    height, width = sizes.unbind(-1)
    zero = torch.zeros_like(width)
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = (x1.clamp(zero, width), y1.clamp(zero, height), x2.clamp(zero, width), y2.clamp(zero, height))
    return torch.stack(corners, dim=-1)


def scale_boxes(boxes: Tensor, scale: tuple[float, float]) -> Tensor:
    """Boxes (..., 4) multiplied by ``scale``, (x factor, y factor)."""
    return boxes * boxes.new_tensor([scale[0], scale[1], scale[0], scale[1]])


def flip_boxes(boxes: Tensor, width: float) -> Tensor:
    """Boxes (..., 4) mirrored left to right in an image ``width`` pixels wide."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=-1)
