"""NMS and matching: functions of boxes (x1, y1, x2, y2) in pixels.

IoU is computed in float32 (float64 for float64 boxes, but not in ``max_iou``). An empty box, or one with NaN in it, has
IoU 0 with everything: it neither suppresses nor is suppressed, and matches nothing. No function here has derivatives.
"""

import torch
from torch import Tensor

from frdet.ops import fallback, loading
from frdet.ops.derivatives import refuse_other_derivatives
from frdet.ops.fallback import MaxIoU


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,) in the same dtype.
        iou_threshold: a box is dropped if its IoU with a kept box of higher score is above this.

    Returns:
        Indices (K,) int64 of the kept boxes, best score first; equal scores keep their input order, a NaN score comes
        before all others.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit.
    """
    if loading.is_native(boxes):
        return torch.ops.frdet.nms(boxes, scores, iou_threshold)
    return fallback.nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """NMS within each group: boxes (N, 4) of different ``idxs`` (N,) integers never suppress each other.

    IoU is that of the boxes as they are, in every group; shifting the groups apart, as is common, would round it.
    Returns and raises as ``nms``.
    """
    if loading.is_native(boxes):
        return torch.ops.frdet.batched_nms(boxes, scores, idxs.long(), iou_threshold)
    return fallback.batched_nms(boxes, scores, idxs, iou_threshold)


def batched_nms_mask(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """As ``batched_nms``, but a mask (N,) bool of the kept boxes: a result of fixed size, in the input's order.

    A box whose score is -inf is never kept and suppresses nothing. On CUDA nothing is copied to the host.
    """
    if loading.is_native(boxes):
        return torch.ops.frdet.batched_nms_mask(boxes, scores, idxs.long(), iou_threshold)
    return fallback.batched_nms_mask(boxes, scores, idxs, iou_threshold)


def max_iou(boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor | None = None, min_gt_iou: float = 0.0) -> MaxIoU:
    """What matching needs of the IoU of every box with every ground truth, in float32, without a matrix of them.

    Args:
        boxes: (N, 4), shared by all images, or (B, N, 4).
        gt_boxes: (G, 4), or (B, G, 4) padded.
        gt_valid: (G,) or (B, G) bool, False where padded; None: all are real.
        min_gt_iou: see ``MaxIoU.best_of``.

    Raises:
        RuntimeError: shapes, dtypes or devices do not fit, or a derivative of an IoU is asked for.
    """
    refuse_other_derivatives('max_iou', boxes, gt_boxes)
    if not loading.is_native(boxes):
        return fallback.max_iou(boxes, gt_boxes, gt_valid, min_gt_iou)
    if gt_boxes.dim() == 2:
        valid = None if gt_valid is None else gt_valid[None]
        return MaxIoU(*(x[0] for x in torch.ops.frdet.max_iou(boxes, gt_boxes[None], valid, min_gt_iou)))
    return MaxIoU(*torch.ops.frdet.max_iou(boxes, gt_boxes, gt_valid, min_gt_iou))
