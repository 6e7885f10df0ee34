"""NMS, RoIAlign and matching. Signatures and results are torchvision's where it has the operator."""

from frdet.ops.fallback import MaxIoU, batched_nms, batched_nms_mask, max_iou, multiscale_roi_align, nms, roi_align

__all__ = ['MaxIoU', 'batched_nms', 'batched_nms_mask', 'max_iou', 'multiscale_roi_align', 'nms', 'roi_align']
