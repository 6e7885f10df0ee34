"""Operators with kernels of their own: NMS, RoIAlign, matching, enlarging; torchvision's signatures where it has them.

The kernels are C++ and CUDA (``ops/``). Without them the same functions run on torchvision's kernels and plain torch.
"""

from frdet.ops import registration as registration  # tells torch of the operators, if they are loaded
from frdet.ops.boxes import batched_nms, batched_nms_mask, max_iou, nms
from frdet.ops.fallback import MaxIoU
from frdet.ops.images import enlarge
from frdet.ops.pooling import multiscale_roi_align, roi_align

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
