"""NMS and matching of boxes (x1, y1, x2, y2) in pixels.

IoU is computed in float32 (in float64 for float64 boxes, except in ``max_iou``). An empty box, or a box with NaN, has
IoU 0 with every box: it suppresses no box, is never suppressed, and matches nothing. No function here has derivatives.
"""

import torch
from torch import Tensor

from frdet.ops import fallback, loading
from frdet.ops.fallback import MaxIoU
from frdet.ops.registration import refuse_other_derivatives


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,) in the same dtype.
        iou_threshold: a box is dropped if its IoU with a kept box of higher score is above this.

    Returns:
        Indices (K,) int64 of the kept boxes, best score first. Equal scores keep their input order; NaN scores come
        first.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit.
    """
    if loading.is_native(boxes):
        return torch.ops.frdet.nms(boxes, scores, iou_threshold)
    return fallback.nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """NMS within each group: boxes (N, 4) of different ``idxs`` (N,) integers never suppress each other.

    The boxes are not shifted apart, as is common, because that would round their IoU. Returns and raises as ``nms``.
    """
    if loading.is_native(boxes):
        return torch.ops.frdet.batched_nms(boxes, scores, idxs.long(), iou_threshold)
    return fallback.batched_nms(boxes, scores, idxs, iou_threshold)


def batched_nms_mask(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """``batched_nms`` with a result of fixed size: a mask (N,) bool of the kept boxes, in the input's order.

    A box whose score is -inf is never kept and suppresses nothing. On CUDA nothing is copied to the host.
    """
    if loading.is_native(boxes):
        return torch.ops.frdet.batched_nms_mask(boxes, scores, idxs.long(), iou_threshold)
    return fallback.batched_nms_mask(boxes, scores, idxs, iou_threshold)


def max_iou(boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor | None = None, min_gt_iou: float = 0.0) -> MaxIoU:
    """The best IoU of every box and of every ground truth, in float32, without the matrix of all IoUs.

    Args:
        boxes: (N, 4), shared by all images, or (B, N, 4).
        gt_boxes: (G, 4), or (B, G, 4) padded.
        gt_valid: (G,) or (B, G) bool, False where padded; None: nothing is padded.
        min_gt_iou: see ``MaxIoU.best_of``.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit, or a derivative is asked for.
    """
    refuse_other_derivatives('max_iou', boxes, gt_boxes)
    if not loading.is_native(boxes):
        return fallback.max_iou(boxes, gt_boxes, gt_valid, min_gt_iou)
    if gt_boxes.dim() == 2:
        valid = None if gt_valid is None else gt_valid[None]
        return MaxIoU(*(x[0] for x in torch.ops.frdet.max_iou(boxes, gt_boxes[None], valid, min_gt_iou)))
    return MaxIoU(*torch.ops.frdet.max_iou(boxes, gt_boxes, gt_valid, min_gt_iou))
