"""Selecting few of many scored boxes: proposals after the first stage, detections after the second."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from frdet import ops
from frdet.models.task_modules.observing import DetectionsSelected, ProposalsSelected, TopK, is_observed, tell
from frdet.models.task_modules.suppression import NMS, Suppression
from frdet.structures import clip_boxes


class Proposals(NamedTuple):
    """Proposals of B images, best score first, padded to P an image.

    Attributes:
        boxes: (B, P, 4) xyxy in pixels of the network's input, zeros where padded.
        scores: (B, P) objectness logits, -inf where padded.
        valid: (B, P) bool, False where padded.
        image_sizes: (B, 2), height and width of the images before padding; None where no head needs them.
    """

    boxes: Tensor
    scores: Tensor
    valid: Tensor
    image_sizes: Tensor | None = None


class Detections(NamedTuple):
    """Detections of B images, best score first, padded to D an image.

    Attributes:
        boxes: (B, D, 4) xyxy in pixels of the network's input, zeros where padded.
        scores: (B, D) probabilities, 0 where padded.
        labels: (B, D) int64, -1 where padded.
        masks: (B, D, M, M) probabilities of the object's pixels, on a grid over its box; None without a mask head.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


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


def best_pairs(scores: Tensor, num: int, at_least: float = -torch.inf) -> tuple[Tensor, Tensor, Tensor]:
    """The ``num`` best pairs of anchor and class, or fewer: their scores, anchors and labels, (B, k) each.

    Padding has the score -inf. An exported graph always gives ``num`` of them, as in ``best_scores``.

    Args:
        scores: (B, n, K), in any unit.
        num: largest number of pairs of an image.
        at_least: lower scores may be left out. On a CPU this saves time, because few scores are sorted.
    """
    flat = scores.flatten(1)
    if torch.compiler.is_exporting():
        best, index = F.pad(flat, (0, num), value=-torch.inf).topk(num, dim=1)
        index = index.clamp(max=flat.shape[1] - 1)
    elif is_observed() or not flat.is_cpu:
        best, index = flat.topk(min(num, flat.shape[1]), dim=1)
        if is_observed():
            tell(TopK(scores.amax(dim=2), index // scores.shape[2]))
    else:
        found = [_top_of_few(one, num, at_least) for one in flat]
        best = pad_sequence([one for one, _ in found], batch_first=True, padding_value=-torch.inf)
        index = pad_sequence([one for _, one in found], batch_first=True)
    return best, index // scores.shape[2], index % scores.shape[2]


def _top_of_few(scores: Tensor, num: int, at_least: float) -> tuple[Tensor, Tensor]:
    """The best ``num`` of scores (n,) that are ``at_least``, and the best one in any case; and their indices."""
    few = (scores >= at_least).nonzero().squeeze(1)
    few = few if len(few) else scores.argmax()[None]
    best, at = scores[few].topk(min(num, len(few)))
    return best, few[at]


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
    return Proposals(chosen.masked_fill(~valid[..., None], 0), best, valid, image_sizes)


def select_batch(
    boxes: Tensor,
    scores: Tensor,
    valid: Tensor,
    *,
    score_thr: float,
    nms_iou_thr: float,
    num: int,
    min_side: float = 0.0,
    nms: Suppression = NMS(),  # noqa: B008  # it is never changed
) -> Detections:
    """Drop low scores, suppress within each class, keep the best of all classes of each image.

    Every step keeps the tensors' shapes. Equal scores keep the order of boxes and classes.

    Args:
        boxes: (B, P, K, 4), a box for every class, or (B, P, 1, 4), one for all classes; clipped.
        scores: (B, P, K) probabilities.
        valid: (B, P) bool, False where padded.
        score_thr: scores are dropped unless they are above this.
        nms_iou_thr: the IoU that ``nms`` gets.
        num: D, or P * K if that is less. A detection without area is replaced by padding.
        min_side: boxes are dropped if a side is below this, in pixels.
        nms: the rule by which boxes suppress others.
    """
    num_classes = scores.shape[2]
    legal = boxes.isfinite().all(dim=-1).all(dim=-1) & scores.isfinite().all(dim=-1) & valid
    boxes = boxes.expand(-1, -1, num_classes, -1)
    labels = torch.arange(num_classes, device=scores.device).expand_as(scores)
    is_candidate = (scores > score_thr) & legal[..., None] & _has_sides(boxes, min_side)
    candidates = scores.masked_fill(~is_candidate, -torch.inf)
    kept = nms(boxes.flatten(1, 2), candidates.flatten(1), labels.flatten(1), nms_iou_thr)
    found, index, there = _best(boxes.flatten(1, 2), kept, labels.flatten(1), num)
    final = kept.view_as(scores)
    tell(DetectionsSelected(boxes, scores, valid, is_candidate, final, index, there, score_thr, nms_iou_thr, nms))
    return found


def select_labelled(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    class_scores: Callable[[], Tensor],
    score_thr: float,
    nms_iou_thr: float,
    num: int,
    min_side: float = 0.0,
    nms: Suppression = NMS(),  # noqa: B008
) -> Detections:
    """As ``select_batch``, for boxes that have one class each, such as the best pairs of anchor and class.

    Args:
        boxes: (B, N, 4), clipped.
        scores: (B, N) probabilities; -inf where padded.
        labels: (B, N) int64.
        class_scores: gives the probabilities (B, N, K) of all classes of these boxes. Only an observer needs them.
        score_thr, nms_iou_thr, num, min_side, nms: see ``select_batch``.
    """
    legal = boxes.isfinite().all(dim=-1) & scores.isfinite()
    is_candidate = (scores > score_thr) & legal & _has_sides(boxes, min_side)
    kept = nms(boxes, scores.masked_fill(~is_candidate, -torch.inf), labels, nms_iou_thr)
    found, index, there = _best(boxes, kept, labels, num)
    if is_observed():
        every = class_scores()
        own = labels[..., None] == torch.arange(every.shape[2], device=labels.device)
        candidate, final = own & is_candidate[..., None], kept[..., None].masked_fill(~own, -torch.inf)
        place = index * every.shape[2] + labels.gather(1, index)
        wide = boxes[:, :, None].expand(*every.shape, 4)
        tell(DetectionsSelected(wide, every, legal, candidate, final, place, there, score_thr, nms_iou_thr, nms))
    return found


def _has_sides(boxes: Tensor, least: float) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] >= least).all(dim=-1)


def _best(boxes: Tensor, kept: Tensor, labels: Tensor, num: int) -> tuple[Detections, Tensor, Tensor]:
    """The best ``num`` of N boxes with scores (B, N), -inf where dropped; their indices; and which are no padding."""
    num = min(num, kept.shape[1])
    if torch.compiler.is_exporting():  # ONNX has no stable sort
        best, index = kept.topk(num, dim=1)
    else:
        best, index = (x[:, :num] for x in kept.sort(dim=1, descending=True, stable=True))
    chosen = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    is_empty = (best == -torch.inf) | (chosen[..., 2:] <= chosen[..., :2]).any(dim=-1)
    found = Detections(
        chosen.masked_fill(is_empty[..., None], 0),
        best.masked_fill(is_empty, 0),
        labels.gather(1, index).masked_fill(is_empty, -1),
    )
    return found, index, ~is_empty
