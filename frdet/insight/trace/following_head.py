"""The stages from the scores of a head to the detections; shapes as in ``trail.py``."""

import torch

from frdet.insight.trace.stages import BACKGROUND, CLASS_NMS, CUT, OTHER_CLASS, REFINEMENT, SCORE
from frdet.insight.trace.trail import Trail, pixels
from frdet.models.task_modules.observing import DetectionsSelected
from frdet.structures import box_iou


def follow_head(trail: Trail, told: DetectionsSelected) -> None:
    """Class, refined box, score threshold, NMS and the cut, for the boxes of each object's own class.

    The background's probability is taken as what the scores of the classes leave of 1.
    """
    labels, needed, numbers = trail.truth.labels, trail.rules.iou, trail.numbers
    image = torch.arange(len(labels), device=labels.device)[:, None]
    scores, valid = told.scores.float(), told.valid[:, None]
    is_chosen = torch.zeros_like(told.kept.flatten(1)).scatter(1, told.index, told.there).view_as(told.kept)
    # (B, G, P) of each object's own class
    box, score, candidate, kept, chosen = (
        of_classes[image, :, labels] for of_classes in (told.boxes, scores, told.candidate, told.kept, is_chosen)
    )
    iou = box_iou(trail.truth.boxes[:, :, None], box).squeeze(2).masked_fill(~valid, 0)
    right = (iou >= needed) & valid
    best_score, best_label = scores.max(dim=2)
    background = 1 - scores.sum(dim=2)
    called = (best_label[:, None] == labels[..., None]) & (best_score > background)[:, None] & valid
    before = trail.given_iou if trail.given_iou is not None and trail.given_iou.shape == iou.shape else None
    fits = right if before is None or trail.given_fits is None else trail.given_fits & valid

    # The box that fits and has the highest score of the object's class.
    own, at = torch.where(fits, score, -torch.inf).max(dim=-1)
    others = scores[image, at].scatter(2, labels[..., None], -torch.inf)
    other, other_label = others.max(dim=2)
    left = background.gather(1, at)
    has_other = own.isfinite() & other.isfinite()
    numbers['own_score'] = own.masked_fill(own.isinf(), torch.nan)
    numbers['background_score'] = left.masked_fill(own.isinf(), torch.nan)
    numbers['other_class'] = other_label.float().masked_fill(~has_other, torch.nan)
    numbers['other_score'] = other.masked_fill(~has_other, torch.nan)
    numbers['refined_iou'] = iou.amax(dim=-1)

    def choose(b: int, g: int) -> str:
        return OTHER_CLASS if other[b, g] > left[b, g] else BACKGROUND

    def wrong(b: int, g: int) -> str:
        values = {'background': float(left[b, g]), trail.classes[int(labels[b, g])]: float(own[b, g])}
        if choose(b, g) == OTHER_CLASS:
            values = {trail.classes[int(other_label[b, g])]: float(other[b, g]), **values}
        return 'scores: ' + ', '.join(f'{name} {value:.3f}' for name, value in values.items())

    def moved(b: int, g: int) -> str:
        some = valid[b, 0] if before is None else fits[b, g] & called[b, g]
        best = int(torch.where(some, iou[b, g], -1).argmax())
        first = '' if before is None else f'{before[b, g, best]:.2f} before and '
        return f'IoU {first}{iou[b, g, best]:.2f} after refinement, and {needed:g} is needed'

    def low(b: int, g: int) -> str:
        best = int(torch.where(right[b, g] & called[b, g], score[b, g], -torch.inf).argmax())
        if score[b, g, best] > told.score_thr:
            return f'its box is too small: {pixels(box[b, g, best, 2:] - box[b, g, best, :2])}'
        return f'score {score[b, g, best]:.3f}, and more than {told.score_thr:g} is needed'

    def suppressed(b: int, g: int) -> str:
        best = int(torch.where(right[b, g] & candidate[b, g], score[b, g], -torch.inf).argmax())
        rivals = box[b, g], score[b, g], best, kept[b, g]
        if getattr(told.nms, 'class_agnostic', False):
            place = best * told.scores.shape[2] + int(labels[b, g])
            rivals = told.boxes[b].flatten(0, 1), scores[b].flatten(), place, told.kept[b].flatten()
        limit = (
            0.0 if getattr(told.nms, 'method', None) == 'gaussian' else told.nms_iou_thr
        )  # it lowers any that overlap
        return trail.suppressor('a detection', b, g, *rivals, limit=limit, needed=needed)

    def outnumbered(b: int, g: int) -> str:
        final, rivals = told.final[b][:, labels[b, g]], told.final[b][told.kept[b]]
        rank = 1 + int((rivals > final[right[b, g] & kept[b, g]].max()).sum())
        return f'its detection has rank {rank:,} of {len(rivals):,}, and {told.index.shape[1]:,} stay'

    if before is None:  # the boxes before the head are not known, so the refined ones are looked at first
        trail.add(REFINEMENT, right.any(dim=-1), moved)
        trail.add((BACKGROUND, OTHER_CLASS), (fits & called).any(dim=-1), wrong, choose)
    else:
        trail.add((BACKGROUND, OTHER_CLASS), (fits & called).any(dim=-1), wrong, choose)
        trail.add(REFINEMENT, (right & called).any(dim=-1), moved)
    trail.add(SCORE, (right & candidate).any(dim=-1), low)
    trail.add(CLASS_NMS, (right & kept).any(dim=-1), suppressed)
    trail.add(CUT, (right & chosen).any(dim=-1), outnumbered)
