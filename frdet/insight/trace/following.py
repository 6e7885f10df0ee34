"""The stages of a detector, in order, with the objects that are alive after each; shapes as in ``trail.py``."""

import torch
from torch import Tensor

from frdet import ops
from frdet.insight.trace.following_head import follow_head
from frdet.insight.trace.stages import (
    ANCHOR_TOP_K,
    NO_ANCHOR,
    PROPOSAL_NMS,
    PROPOSAL_SIZE,
    PROPOSAL_TOP_K,
    REGRESSION,
    RPN_SCORE,
)
from frdet.insight.trace.trail import Trail, as_probability, pixels
from frdet.models.task_modules.observing import DetectionsSelected, Filtered, ProposalsSelected
from frdet.structures import box_iou


def follow(trail: Trail) -> Trail:
    """Add the steps that the events tell of."""
    for event in trail.events:
        if isinstance(event, ProposalsSelected):
            _follow_anchors(trail, RPN_SCORE)
            _follow_proposals(trail, event)
        elif isinstance(event, DetectionsSelected):
            if trail.proposals is None:
                _follow_anchors(trail, ANCHOR_TOP_K)
                trail.given_iou, trail.given_fits = trail.top_iou, trail.top_fits
            follow_head(trail, event)
        elif isinstance(event, Filtered):
            _follow_filter(trail, event)
    return trail


def _follow_anchors(trail: Trail, name: str) -> None:
    """The anchors, and their top-k called ``name``."""
    anchors, top, truth, assigner = trail.anchors, trail.top, trail.truth, trail.rules.assigner
    if anchors is None or assigner is None:
        return
    nearest = trail.numbers['anchor_iou'] = ops.max_iou(anchors, truth.boxes, truth.valid).gt_iou
    limit = getattr(assigner, 'pos_iou_thr', None)
    if limit is not None:

        def fitting(b: int, g: int) -> Tensor:
            return trail.anchor_ious(b, g) >= limit

        has_any = nearest >= limit
        needed = f'{limit:g} is needed'
    else:  # an assigner with another rule tells by its result which anchors fit
        assigned = assigner.assign_batch(anchors, truth)

        def fitting(b: int, g: int) -> Tensor:
            return (assigned.gt_index[b] == g) & (assigned.label[b] == 1)

        number = torch.arange(truth.boxes.shape[1], device=anchors.device)[None, :, None]
        is_assigned = (assigned.gt_index[:, None] == number) & (assigned.label == 1)[:, None]
        has_any = is_assigned.any(dim=-1)
        needed = 'the assigner gives it no anchor'
    trail.add(NO_ANCHOR, has_any, lambda b, g: f'the nearest anchor has IoU {nearest[b, g]:.2f} with it, and {needed}')
    if top is None:
        return
    trail.top_iou = box_iou(truth.boxes, anchors[top])
    fits = trail.top_fits = (
        trail.top_iou >= limit
        if limit is not None
        else is_assigned.gather(2, top[:, None].expand(-1, truth.boxes.shape[1], -1))
    )
    place = torch.cat([torch.arange(1.0, 1 + event.index.shape[1], device=top.device) for event in trail.levels])
    rank, at = torch.where(fits, place, torch.inf).min(dim=-1)
    scores = [as_probability(event.scores.gather(1, event.index), event.scores) for event in trail.levels]
    trail.numbers['anchor_rank'] = rank.masked_fill(rank.isinf(), torch.nan)
    trail.numbers['anchor_score'] = torch.cat(scores, dim=1).gather(1, at).masked_fill(rank.isinf(), torch.nan)
    outside = {(b, g): _outside_top(trail, b, g, fitting(b, g)) for b, g in (has_any & rank.isinf()).nonzero().tolist()}
    trail.add(name, fits.any(dim=-1), lambda b, g: outside[b, g])


def _outside_top(trail: Trail, b: int, g: int, fits: Tensor) -> str:
    """Note and say rank and score of the anchor that fits and comes nearest to the ranks that stay in its level."""
    found = []
    parts = fits.split([event.scores.shape[1] for event in trail.levels])
    for level, (event, part) in enumerate(zip(trail.levels, parts, strict=True)):
        if part.any():
            score, stay = event.scores[b][part].max(), event.index.shape[1]
            rank = 1 + int((event.scores[b] > score).sum())
            found.append((rank - stay, rank, level, score))
    _, rank, level, score = min(found, key=lambda entry: entry[0])
    event = trail.levels[level]
    best = float(as_probability(score, event.scores))
    trail.numbers['anchor_rank'][b, g], trail.numbers['anchor_score'][b, g] = rank, best
    return (
        f'its best anchor has rank {rank:,} of {event.scores.shape[1]:,} in {trail.level_name(level)}, score '
        f'{best:.3f}, and {event.index.shape[1]:,} stay'
    )


def _follow_proposals(trail: Trail, told: ProposalsSelected) -> None:
    """From the boxes that are decoded from the best anchors to the proposals."""
    iou = box_iou(trail.truth.boxes, told.boxes)
    fits = iou >= trail.rules.proposal_iou
    at = told.index[:, None].expand(-1, iou.shape[1], -1)
    given = trail.given_iou = iou.gather(2, at).masked_fill(~told.valid[:, None], 0)
    trail.given_fits = given >= trail.rules.proposal_iou
    trail.numbers['decoded_iou'] = iou.amax(dim=-1)
    trail.numbers['proposal_iou'] = given.amax(dim=-1)

    def moved(b: int, g: int) -> str:
        top_iou, top_fits = trail.top_iou, trail.top_fits
        if top_iou is None or top_fits is None or top_iou.shape != iou.shape or not top_fits[b, g].any():
            return f'the best decoded box has IoU {iou[b, g].max():.2f} with it'
        best = int(torch.where(top_fits[b, g], iou[b, g], -1).argmax())
        return f'IoU {top_iou[b, g, best]:.2f} as an anchor, {iou[b, g, best]:.2f} after decoding'

    def small(b: int, g: int) -> str:
        best = int(torch.where(fits[b, g], iou[b, g], -1).argmax())
        return f'its best proposal is {pixels(told.boxes[b, best, 2:] - told.boxes[b, best, :2])}'

    def suppressed(b: int, g: int) -> str:
        best = int(torch.where(fits[b, g] & told.legal[b], told.scores[b], -torch.inf).argmax())
        rivals = told.kept[b] & (told.level == told.level[best])
        return trail.suppressor(
            'a proposal', b, g, told.boxes[b], told.scores[b], best, rivals,
            limit=told.nms_iou_thr, needed=trail.rules.proposal_iou,
        )  # fmt: skip

    def outnumbered(b: int, g: int) -> str:
        kept = told.scores[b][told.kept[b]]
        rank = 1 + int((kept > told.scores[b][fits[b, g] & told.kept[b]].max()).sum())
        return f'its best proposal has rank {rank:,} of {len(kept):,}, and {told.index.shape[1]:,} stay'

    trail.add(REGRESSION, fits.any(dim=-1), moved)
    trail.add(PROPOSAL_SIZE, (fits & told.legal[:, None]).any(dim=-1), small)
    trail.add(PROPOSAL_NMS, (fits & told.kept[:, None]).any(dim=-1), suppressed)
    trail.add(PROPOSAL_TOP_K, trail.given_fits.any(dim=-1), outnumbered)


def _follow_filter(trail: Trail, told: Filtered) -> None:
    """A stage that only the user's detector has."""
    iou = box_iou(trail.truth.boxes, told.boxes)
    fits = iou >= (trail.rules.proposal_iou if told.labels is None else trail.rules.iou)
    if told.labels is not None:
        fits &= told.labels[:, None] == trail.truth.labels[..., None]

    def why(b: int, g: int) -> str:
        if count := int(fits[b, g].sum()):
            return f'it drops {count} {"box" if count == 1 else "boxes"} that fit'
        return f'no box fits it, the nearest has IoU {iou[b, g].max():.2f}'

    trail.add(told.name, (fits & told.kept[:, None]).any(dim=-1), why)
