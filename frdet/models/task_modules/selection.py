"""From many scored boxes to few: proposals after the first stage, detections after the second."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.structures import InstanceData
from torch import Tensor

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


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    *,
    score_thr: float,
    nms_iou_thr: float,
    num: int,
    min_side: float = 0.0,
) -> InstanceData:
    """Keep scores above a threshold, suppress within each class, keep the best of all classes: one image.

    Args:
        boxes: (n, K, 4) a box for every class, or (n, 1, 4) one for all; clipped.
        scores: (n, K) probabilities.
        score_thr: scores not above this are dropped.
        nms_iou_thr: IoU above which the lower score of a class is dropped.
        num: detections kept at most.
        min_side: boxes with a side below this are dropped, in pixels.

    Returns:
        ``bboxes`` (m, 4), ``scores`` (m,), ``labels`` (m,), best score first.
    """
    finite = boxes.isfinite().all(dim=-1).all(dim=-1) & scores.isfinite().all(dim=-1)
    roi, label = ((scores > score_thr) & finite[:, None]).nonzero(as_tuple=True)
    boxes = boxes[roi, label if boxes.shape[1] > 1 else 0]
    scores = scores[roi, label]
    if min_side > 0:
        large = ((boxes[:, 2:] - boxes[:, :2]) >= min_side).all(dim=1)
        boxes, scores, label = boxes[large], scores[large], label[large]
    keep = ops.batched_nms(boxes, scores, label, nms_iou_thr)[:num]
    return InstanceData(bboxes=boxes[keep], scores=scores[keep], labels=label[keep])
