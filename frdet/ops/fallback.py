"""The operators on torchvision's kernels, and plain torch for what torchvision lacks."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision import ops as tv

from frdet.structures import box_iou


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_threshold: a box is dropped if its IoU with a kept box of higher score is above this.

    Returns:
        Indices (K,) int64 of the kept boxes, best score first; equal scores keep their input order.
    """
    return tv.nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """NMS within each group: boxes (N, 4) of different ``idxs`` (N,) never suppress each other. Returns as ``nms``."""
    return tv.batched_nms(boxes.float(), scores, idxs, iou_threshold)


def batched_nms_mask(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """As ``batched_nms``, but a mask (N,) bool of the kept boxes: a result of fixed size, in the input's order.

    A box whose score is -inf is never kept and suppresses nothing.
    """
    present = scores > -torch.inf
    candidates = present.nonzero().squeeze(1)
    kept = candidates[batched_nms(boxes[candidates], scores[candidates], idxs[candidates], iou_threshold)]
    return torch.zeros_like(present).index_fill_(0, kept, True)


def roi_align(
    input: Tensor,
    boxes: Tensor | list[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign (Mask R-CNN, section 3) with torchvision's signature and values.

    Args:
        input: (N, C, H, W).
        boxes: (K, 5) as (image index, x1, y1, x2, y2), or N tensors (L, 4), in image pixels.
        output_size: bins as (height, width), or one number for both.
        spatial_scale: feature map pixels per image pixel, 1 / stride.
        sampling_ratio: samples a bin and axis; 0 or less takes ceil(bin size) of them.
        aligned: shift by half a pixel so that pixel centres, not corners, sit at integers.

    Returns:
        (K, C, output height, output width) in the dtype of ``input``.
    """
    return tv.roi_align(input, boxes, output_size, spatial_scale, sampling_ratio, aligned)


def multiscale_roi_align(
    features: list[Tensor],
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scales: list[float],
    sampling_ratio: int = -1,
    aligned: bool = True,
    canonical_size: float = 224.0,
    canonical_level: float = 4.0,
    min_level: int = 2,
    eps_inside: float = 1e-8,
    eps_outside: float = 0.0,
) -> Tensor:
    """RoIAlign of each RoI on the FPN level its size asks for (FPN, equation 1).

    level = floor(canonical_level + log2(sqrt(area) / canonical_size + eps_inside) + eps_outside), clamped to the levels
    given; the two small numbers are where detectron2 (1e-8, 0) and torchvision (0, 1e-6) differ.

    Args:
        features: L maps (N, C, H_l, W_l), finest first; the first is level ``min_level``.
        rois: (K, 5) as (image index, x1, y1, x2, y2) in image pixels.
        output_size, sampling_ratio, aligned: as in ``roi_align``.
        spatial_scales: L numbers, 1 / stride of each map.

    Returns:
        (K, C, output height, output width), in the order of ``rois``.
    """
    size = (output_size, output_size) if isinstance(output_size, int) else (output_size[0], output_size[1])
    if len(features) == 1:
        return roi_align(features[0], rois, size, spatial_scales[0], sampling_ratio, aligned)
    area = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
    level = torch.log2(area.clamp(min=0).sqrt() / canonical_size + eps_inside) + canonical_level + eps_outside
    level = level.floor().clamp(min_level, min_level + len(features) - 1).long() - min_level
    output = features[0].new_zeros(rois.shape[0], features[0].shape[1], *size)
    for i, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        chosen = (level == i).nonzero().squeeze(1)
        pooled = roi_align(feature, rois[chosen].to(feature.dtype), size, scale, sampling_ratio, aligned)
        output = output.index_copy(0, chosen, pooled)
    return output


class MaxIoU(NamedTuple):
    """Result of ``max_iou`` for B images, N boxes and G ground truths each (no B where the inputs had none).

    Attributes:
        iou: (B, N) float32, the best IoU of each box; 0 where there is no ground truth.
        index: (B, N) int64, the ground truth that gives it, the first of equals; 0 where there is none.
        gt_iou: (B, G) float32, the best IoU of each ground truth; 0 where padded.
        best_of: (B, N) int64, the last ground truth whose best IoU this box attains, among those whose best IoU is
            above 0 and at least ``min_gt_iou``; -1 if there is none.
    """

    iou: Tensor
    index: Tensor  # type: ignore[assignment]  # the field, not tuple.index
    gt_iou: Tensor
    best_of: Tensor


def max_iou(boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor | None = None, min_gt_iou: float = 0.0) -> MaxIoU:
    """What matching needs of the IoU of every box with every ground truth.

    Args:
        boxes: (N, 4), shared by all images, or (B, N, 4).
        gt_boxes: (G, 4), or (B, G, 4) padded.
        gt_valid: (B, G) bool, False where padded; None: all are real.
        min_gt_iou: see ``MaxIoU.best_of``.
    """
    if gt_boxes.dim() == 2:
        valid = None if gt_valid is None else gt_valid[None]
        return MaxIoU(*(x[0] for x in max_iou(boxes, gt_boxes[None], valid, min_gt_iou)))
    batch, num_gt = gt_boxes.shape[:2]
    shape = (batch, boxes.shape[-2])
    if num_gt == 0:
        zeros = boxes.new_zeros(shape, dtype=torch.float32)
        index = torch.zeros(shape, dtype=torch.int64, device=boxes.device)
        return MaxIoU(zeros, index, zeros.new_zeros(batch, 0), index - 1)
    iou = box_iou(gt_boxes.float(), boxes.float())  # (B, G, N)
    if gt_valid is not None:
        iou = iou.masked_fill(~gt_valid[..., None], -1)
    best, index = iou.max(dim=1)
    gt_iou = iou.amax(dim=2, keepdim=True) if shape[1] else iou.new_zeros(batch, num_gt, 1)
    attained = (iou == gt_iou) & (gt_iou > 0) & (gt_iou >= min_gt_iou)
    number = torch.arange(num_gt, device=boxes.device)[None, :, None]
    best_of = torch.where(attained, number, -1).amax(dim=1)
    return MaxIoU(best.clamp(min=0), index.masked_fill(best <= 0, 0), gt_iou.squeeze(2).clamp(min=0), best_of)
