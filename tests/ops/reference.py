"""The operators again, as slow and obvious loops: what the tests compare with.

Written from the definitions (greedy NMS; RoIAlign, Mask R-CNN section 3; FPN equation 1), one box, bin and sample at a
time. IoU is numpy's arithmetic in the dtype given, so that a comparison with a threshold rounds as the operators must.
"""

import math

import numpy as np
import torch
from torch import Tensor


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two boxes (4,) in their dtype; 0 where they do not overlap."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if not (width > 0 and height > 0):
        return 0.0
    inter = width * height
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return inter / (area_a + area_b - inter)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the kept boxes, best first."""
    coordinates = (boxes.float() if boxes.dtype in (torch.bfloat16, torch.float16) else boxes).cpu().numpy()
    order = sorted(range(len(boxes)), key=lambda i: (-float(scores[i]), i))
    kept: list[int] = []
    for i in order:
        if all(float(iou(coordinates[i], coordinates[k])) <= iou_threshold for k in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """As ``nms``, group by group."""
    kept: list[int] = []
    for group in sorted(set(idxs.tolist())):
        members = [i for i in range(len(boxes)) if idxs[i] == group]
        kept += [members[i] for i in nms(boxes[members], scores[members], iou_threshold).tolist()]
    return torch.tensor(sorted(kept, key=lambda i: (-float(scores[i]), i)), dtype=torch.int64)


def bilinear(image: Tensor, y: float, x: float) -> Tensor:
    """The value (C,) of ``image`` (C, H, W) between pixels; the border's up to one pixel off it, and then 0."""
    _, height, width = image.shape
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros_like(image[:, 0, 0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = image[:, top, left] * (1 - across) + image[:, top, right] * across
    lower = image[:, bottom, left] * (1 - across) + image[:, bottom, right] * across
    return upper * (1 - down) + lower * down


def roi_align(
    input: Tensor, rois: Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """(K, C, *size). Differentiable in ``input`` by autograd."""
    offset = 0.5 if aligned else 0.0
    results = []
    for number, *corners in rois.double().tolist():
        x1, y1, x2, y2 = (corner * scale - offset for corner in corners)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        bin_height, bin_width = height / size[0], width / size[1]
        rows = sampling_ratio if sampling_ratio > 0 else math.ceil(bin_height)
        columns = sampling_ratio if sampling_ratio > 0 else math.ceil(bin_width)
        for bin_y in range(size[0]):
            for bin_x in range(size[1]):
                total = torch.zeros_like(input[0, :, 0, 0])
                for i in range(rows):
                    for j in range(columns):
                        y = y1 + bin_y * bin_height + (i + 0.5) * bin_height / rows
                        x = x1 + bin_x * bin_width + (j + 0.5) * bin_width / columns
                        total = total + bilinear(input[int(number)], y, x)
                results.append(total / max(rows * columns, 1))
    channels = input.shape[1]
    if not results:
        return input.new_zeros(0, channels, *size)
    return torch.stack(results).reshape(len(rois), *size, channels).permute(0, 3, 1, 2)


def level_of(
    roi: list[float], levels: int, canonical_size: float = 224, canonical_level: float = 4, min_level: int = 2
) -> int:
    """Which of ``levels`` maps a box (x1, y1, x2, y2) is pooled from."""
    area = max((roi[2] - roi[0]) * (roi[3] - roi[1]), 0.0)
    level = math.floor(canonical_level + math.log2(math.sqrt(area) / canonical_size + 1e-8))
    return min(max(level, min_level), min_level + levels - 1) - min_level


def max_iou(
    boxes: Tensor, gt_boxes: Tensor, gt_valid: Tensor, min_gt_iou: float
) -> tuple[list[float], list[int], list[float], list[int]]:
    """One image's (iou, index, gt_iou, best_of), see ``MaxIoU``; boxes (N, 4), gt_boxes (G, 4), gt_valid (G,)."""
    table = [
        [float(iou(box, gt)) if valid else 0.0 for gt, valid in zip(gt_boxes.numpy(), gt_valid.tolist(), strict=True)]
        for box in boxes.numpy()
    ]
    best = [max(row, default=0.0) for row in table]
    index = [row.index(max(row)) if row and max(row) > 0 else 0 for row in table]
    gt_best = [max((row[g] for row in table), default=0.0) for g in range(len(gt_boxes))]
    counts = [g for g in range(len(gt_boxes)) if gt_best[g] > 0 and gt_best[g] >= min_gt_iou]
    best_of = [max((g for g in counts if row[g] == gt_best[g]), default=-1) for row in table]
    return best, index, gt_best, best_of
