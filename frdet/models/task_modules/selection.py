"""Selecting few of many scored boxes: proposals after the first stage, detections after the second."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from frdet import ops
from frdet.models.task_modules.observing import DetectionsSelected, ProposalsSelected, TopK, tell
from frdet.structures import clip_boxes


class Proposals(NamedTuple):
    """Proposals of B images, best score first, padded to P an image.

    Attributes:
        boxes: (B, P, 4) xyxy in pixels of the network's input, zeros where padded.
        scores: (B, P) objectness logits, -inf where padded.
        valid: (B, P) bool, False where padded.
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor


class Detections(NamedTuple):
    """Detections of B images, best score first, padded to D an image.

    Attributes:
        boxes: (B, D, 4) xyxy in pixels of the network's input, zeros where padded.
        scores: (B, D) probabilities, 0 where padded.
        labels: (B, D) int64, -1 where padded.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def best_scores(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The ``num`` best of scores (B, n), or all if there are fewer, and their indices: (B, min(num, n)) each.

    An exported graph always gives ``num`` of them, padded with -inf and any legal index, so that no later size depends
    on the image size.
    """
    count = scores.shape[1]
    if not torch.compiler.is_exporting():
        best, index = scores.topk(min(num, count), dim=1)
        tell(TopK(scores, index))
        return best, index
    best, index = F.pad(scores, (0, num), value=-torch.inf).topk(num, dim=1)
    return best, index.clamp(max=count - 1)


def select_proposals(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_sizes: Tensor,
    *,
    nms_iou_thr: float,
    num: int,
    min_side: float,
) -> Proposals:
    """Clip boxes, drop small ones, suppress within each level, keep the best of all levels.

    Every step keeps the tensors' shapes: a dropped box gets the score -inf. One NMS call serves all images and levels.

    Args:
        boxes: (B, n_l, 4) of each level.
        scores: (B, n_l) of each level.
        image_sizes: (B, 2), height and width before padding.
        nms_iou_thr: IoU above which the lower score is dropped.
        num: P, or all boxes if there are fewer.
        min_side: boxes are dropped unless both sides are above this, in pixels.
    """
    level = torch.cat([s.new_full((s.shape[1],), i, dtype=torch.long) for i, s in enumerate(scores)])
    decoded = torch.cat(list(boxes), dim=1)
    all_boxes = clip_boxes(decoded, image_sizes[:, None])
    all_scores = torch.cat(list(scores), dim=1)
    sides = all_boxes[..., 2:] - all_boxes[..., :2]
    legal = (sides > min_side).all(dim=-1) & all_scores.isfinite()
    all_scores = all_scores.masked_fill(~legal, -torch.inf)
    batch, count = all_scores.shape
    group = torch.arange(batch, device=level.device)[:, None] * len(scores) + level
    keep = ops.batched_nms_mask(all_boxes.flatten(0, 1), all_scores.flatten(), group.flatten(), nms_iou_thr)
    keep = keep.view(batch, count)
    best, index = all_scores.masked_fill(~keep, -torch.inf).topk(min(num, count), dim=1)
    valid = best > -torch.inf
    tell(ProposalsSelected(decoded, all_boxes, all_scores, level, legal, keep, index, valid, nms_iou_thr))
    chosen = all_boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return Proposals(chosen.masked_fill(~valid[..., None], 0), best, valid)


def select_batch(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    *,
    score_thr: float,
    nms_iou_thr: float,
    num: int,
    min_side: float = 0.0,
) -> Detections:
    """Drop low scores, suppress within each class, keep the best of all classes of each image.

    Every step keeps the tensors' shapes. Equal scores keep the order of boxes and classes.

    Args:
        boxes: (B, P, K, 4), a box for every class, or (B, P, 1, 4), one for all classes; clipped.
        scores: (B, P, K) probabilities.
        valid: (B, P) bool, False where padded.
        score_thr: scores are dropped unless they are above this.
        nms_iou_thr: IoU above which the lower score of a class is dropped.
        num: D, or P * K if that is less. A detection without area is replaced by padding.
        min_side: boxes are dropped if a side is below this, in pixels.
    """
    batch, _, num_classes = scores.shape
    legal = boxes.isfinite().all(dim=-1).all(dim=-1) & scores.isfinite().all(dim=-1) & valid
    boxes = boxes.expand(-1, -1, num_classes, -1)
    sides = boxes[..., 2:] - boxes[..., :2]
    is_candidate = (scores > score_thr) & legal[..., None] & (sides >= min_side).all(dim=-1)
    candidates = scores.masked_fill(~is_candidate, -torch.inf)
    first_group = torch.arange(batch, device=scores.device)[:, None, None] * num_classes
    group = (first_group + torch.arange(num_classes, device=scores.device)).expand_as(scores)
    keep = ops.batched_nms_mask(boxes.reshape(-1, 4), candidates.flatten(), group.flatten(), nms_iou_thr)
    keep = keep.view_as(candidates)
    kept = candidates.masked_fill(~keep, -torch.inf).flatten(1)
    num = min(num, kept.shape[1])
    if torch.compiler.is_exporting():  # ONNX has no stable sort
        best, index = kept.topk(num, dim=1)
    else:
        best, index = (x[:, :num] for x in kept.sort(dim=1, descending=True, stable=True))
    chosen = boxes.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 4))
    is_empty = (best == -torch.inf) | (chosen[..., 2:] <= chosen[..., :2]).any(dim=-1)
    tell(DetectionsSelected(boxes, scores, valid, is_candidate, keep, index, ~is_empty, score_thr, nms_iou_thr))
    return Detections(
        chosen.masked_fill(is_empty[..., None], 0),
        best.masked_fill(is_empty, 0),
        (index % num_classes).masked_fill(is_empty, -1),
    )
