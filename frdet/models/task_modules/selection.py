"""From many scored boxes to few: proposals after the first stage, detections after the second."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from frdet import ops
from frdet.structures import clip_boxes


class Proposals(NamedTuple):
    """P places for the proposals of each of B images, best score first.

    Attributes:
        boxes: (B, P, 4) xyxy in pixels of the network's input, zeros in an empty place.
        scores: (B, P) objectness logits, -inf in an empty place.
        valid: (B, P) bool, False in an empty place.
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor


class Detections(NamedTuple):
    """D places for the detections of each of B images, best score first.

    Attributes:
        boxes: (B, D, 4) xyxy in pixels of the network's input, zeros in an empty place.
        scores: (B, D) probabilities, 0 in an empty place.
        labels: (B, D) int64, -1 in an empty place.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def best_scores(scores: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The ``num`` best of scores (B, n), or all if there are fewer, and their indices: (B, min(num, n)) each.

    In a graph that is exported they are always ``num``, with -inf and some index in empty places, so that no later size
    depends on that of the images.
    """
    count = scores.shape[1]
    if not torch.compiler.is_exporting():
        return scores.topk(min(num, count), dim=1)
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
    """Clip, drop what is too small, suppress within each level, keep the best over all levels.

    Every step keeps the tensors' shapes: a dropped box gets the score -inf. One NMS call serves all images and levels.

    Args:
        boxes: a level each, (B, n_l, 4).
        scores: a level each, (B, n_l).
        image_sizes: (B, 2), height and width before padding.
        nms_iou_thr: IoU above which the lower score is dropped.
        num: boxes kept an image.
        min_side: boxes with a side not above this are dropped, in pixels.
    """
    level = torch.cat([s.new_full((s.shape[1],), i, dtype=torch.long) for i, s in enumerate(scores)])
    all_boxes = clip_boxes(torch.cat(list(boxes), dim=1), image_sizes[:, None])
    all_scores = torch.cat(list(scores), dim=1)
    sides = all_boxes[..., 2:] - all_boxes[..., :2]
    legal = (sides > min_side).all(dim=-1) & all_scores.isfinite()
    all_scores = all_scores.masked_fill(~legal, -torch.inf)
    batch, count = all_scores.shape
    group = torch.arange(batch, device=level.device)[:, None] * len(scores) + level
    keep = ops.batched_nms_mask(all_boxes.flatten(0, 1), all_scores.flatten(), group.flatten(), nms_iou_thr)
    best, index = all_scores.masked_fill(~keep.view(batch, count), -torch.inf).topk(min(num, count), dim=1)
    valid = best > -torch.inf
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
    """Keep scores above a threshold, suppress within each class, keep the best of all classes of each image.

    Every step keeps the tensors' shapes. Of equal scores the first box and class come first.

    Args:
        boxes: (B, P, K, 4) a box for every class, or (B, P, 1, 4) one for all; clipped.
        scores: (B, P, K) probabilities.
        valid: (B, P) bool, False where there is no box.
        score_thr: scores not above this are dropped.
        nms_iou_thr: IoU above which the lower score of a class is dropped.
        num: detections kept an image at most: D, or P * K where that is less. The place of a detection without area
            stays empty.
        min_side: boxes with a side below this are dropped, in pixels.
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
    kept = candidates.masked_fill(~keep.view_as(candidates), -torch.inf).flatten(1)
    num = min(num, kept.shape[1])
    if torch.compiler.is_exporting():  # ONNX has no stable sort
        best, index = kept.topk(num, dim=1)
    else:
        best, index = (x[:, :num] for x in kept.sort(dim=1, descending=True, stable=True))
    chosen = boxes.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 4))
    is_empty = (best == -torch.inf) | (chosen[..., 2:] <= chosen[..., :2]).any(dim=-1)
    return Detections(
        chosen.masked_fill(is_empty[..., None], 0),
        best.masked_fill(is_empty, 0),
        (index % num_classes).masked_fill(is_empty, -1),
    )
