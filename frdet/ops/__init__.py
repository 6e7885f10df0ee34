"""Operators with their own kernels: NMS, RoIAlign, matching, enlarging, with torchvision's signatures if it has them.

The kernels are C++ and CUDA (``ops/``). Without them the same functions run on torchvision's kernels and plain torch.
"""

from frdet.ops import registration as registration  # registers the operators with torch, if they are loaded
from frdet.ops.operators import (
    MaxIoU,
    batched_nms,
    batched_nms_mask,
    enlarge,
    max_iou,
    multiscale_roi_align,
    nms,
    roi_align,
)

__all__ = [
    'MaxIoU',
    'batched_nms',
    'batched_nms_mask',
    'enlarge',
    'max_iou',
    'multiscale_roi_align',
    'nms',
    'roi_align',
]
