"""The operators on torchvision's kernels, or in plain torch or Pillow where torchvision has none.

They are used if the extension is not loaded. ``operators.py`` explains them; the arguments are those of
``ops/schema.cpp``. torchvision is imported at the first use: the import takes a second, and with the extension it is
not needed.
"""

from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frdet.structures import box_iou

HALF = (torch.bfloat16, torch.float16)


def _torchvision() -> ModuleType:
    from torchvision import ops

    return ops


def _compared(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes and scores in the dtype to compute in."""
    if boxes.dtype in HALF or torch.is_autocast_enabled(boxes.device.type):
        return boxes.float(), scores.float()
    return boxes, scores


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return _torchvision().nms(*_compared(boxes, scores), iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    boxes, scores = _compared(boxes, scores)
    # One group at a time: of few boxes torchvision would shift the groups apart, which rounds their IoU.
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for group in idxs.unique():
        members = (idxs == group).nonzero().squeeze(1)
        keep[members[_torchvision().nms(boxes[members], scores[members], iou_threshold)]] = True
    order = scores.sort(descending=True, stable=True).indices
    return order[keep[order]]


def batched_nms_mask(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    present = scores != -torch.inf
    candidates = present.nonzero().squeeze(1)
    kept = candidates[batched_nms(boxes[candidates], scores[candidates], idxs[candidates], iou_threshold)]
    return torch.zeros_like(present).index_fill_(0, kept, True)


def _check_rois(rois: Tensor, input: Tensor) -> None:
    """Refuse RoIs that torchvision does not check: it reads beyond the input if an image index is too large."""
    if rois.dim() != 2 or rois.shape[1] != 5:
        raise RuntimeError(
            f'roi_align: RoIs have the shape {tuple(rois.shape)}, expected (K, 5) as (image index, x1, y1, x2, y2)'
        )
    if input.is_cuda or torch.compiler.is_compiling():
        return
    wrong = ~((rois[:, 0] >= 0) & (rois[:, 0] < input.shape[0]))
    if wrong.any():
        k = int(wrong.nonzero()[0])
        raise RuntimeError(
            f'roi_align: RoI {k} has image index {rois[k, 0].item():g}, expected 0 to {input.shape[0] - 1}'
        )


def roi_align(
    input: Tensor, rois: Tensor, spatial_scale: float, height: int, width: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    """``frdet.ops.roi_align`` of RoIs (K, 5): (K, C, height, width)."""
    _check_rois(rois, input)
    # A RoI far outside the map gives zeros, as a RoI that is not finite must.
    is_nothing = ~rois.isfinite().all(dim=1, keepdim=True)
    if aligned and sampling_ratio <= 0:  # torchvision fails where one side is negative
        is_nothing = is_nothing | (rois[:, 3:] < rois[:, 1:3]).any(dim=1, keepdim=True)
    rois = torch.cat([rois[:, :1], rois[:, 1:].masked_fill(is_nothing, -9e5)], dim=1)
    full = input.float() if input.dtype in HALF else input
    output = _torchvision().roi_align(full, rois, (height, width), spatial_scale, sampling_ratio, aligned)
    return output.to(input.dtype)


def multiscale_roi_align(
    features: list[Tensor],
    rois: Tensor,
    spatial_scales: list[float],
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_size: float,
    canonical_level: float,
    min_level: int,
    eps_inside: float,
    eps_outside: float,
) -> Tensor:
    """``frdet.ops.multiscale_roi_align`` of RoIs (K, 5): (K, C, height, width)."""
    if len(features) == 1:
        return roi_align(features[0], rois, spatial_scales[0], height, width, sampling_ratio, aligned)
    _check_rois(rois, features[0])
    area = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
    level = torch.log2(area.clamp(min=0).sqrt() / canonical_size + eps_inside) + canonical_level + eps_outside
    level = (level.floor() - min_level).nan_to_num(0).clamp(0, len(features) - 1).long()
    output = features[0].new_zeros(rois.shape[0], features[0].shape[1], height, width)
    for i, (feature, scale) in enumerate(zip(features, spatial_scales, strict=True)):
        chosen = (level == i).nonzero().squeeze(1)
        pooled = roi_align(feature, rois[chosen], scale, height, width, sampling_ratio, aligned)
        output = output.index_copy(0, chosen, pooled)
    return output


def max_iou(
    boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor | None, min_gt_iou: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """It holds (B, G, N) IoUs of 4 bytes in memory."""
    batch, num_gt = gt_boxes.shape[:2]
    shape = (batch, boxes.shape[-2])
    if num_gt == 0:
        zeros = boxes.new_zeros(shape, dtype=torch.float32)
        index = torch.zeros(shape, dtype=torch.int64, device=boxes.device)
        return zeros, index, zeros.new_zeros(batch, 0), index - 1
    iou = box_iou(gt_boxes.float(), boxes.float()).nan_to_num(0)  # (B, G, N)
    if gt_valid is not None:
        iou = iou.masked_fill(~gt_valid[..., None], -1)
    best, index = iou.max(dim=1)
    gt_iou = iou.amax(dim=2, keepdim=True) if shape[1] else iou.new_zeros(batch, num_gt, 1)
    attained = (iou == gt_iou) & (gt_iou > 0) & (gt_iou >= min_gt_iou)
    number = torch.arange(num_gt, device=boxes.device)[None, :, None]
    best_of = torch.where(attained, number, -1).amax(dim=1)
    return best.clamp(min=0), index.masked_fill(best <= 0, 0), gt_iou.squeeze(2).clamp(min=0), best_of


def enlarge(image: Tensor, height: int, width: int) -> Tensor:
    pixels = Image.fromarray(image.numpy()).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
