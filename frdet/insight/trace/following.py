"""Follows the objects of a batch through the selections that a detector told; see ``task_modules/observing.py``.

B images, G objects an image (padded), N boxes before NMS, P boxes at the head, K classes. All boxes are in pixels of
the network's input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from frdet import ops
from frdet.models.task_modules.observing import (
    Anchors,
    DetectionsSelected,
    Event,
    Filtered,
    ProposalsSelected,
    TopK,
)
from frdet.structures import GroundTruth, box_iou

RESIZING, NO_ANCHOR, RPN_SCORE, ANCHOR_TOP_K = 'resizing', 'no anchor', 'RPN score', 'anchor top-k'
REGRESSION, PROPOSAL_SIZE, PROPOSAL_NMS = 'RPN regression', 'proposal size', 'proposal NMS'
PROPOSAL_TOP_K, BACKGROUND, OTHER_CLASS = 'proposal top-k', 'background', 'another class'
REFINEMENT, SCORE, CLASS_NMS, CUT = 'box refinement', 'score threshold', 'class NMS', 'detections cut'


class Rules(NamedTuple):
    """When a box fits an object.

    Attributes:
        iou: of a detection.
        min_size: square root of an object's area, in pixels.
        proposal_iou: of a proposal.
        assigner: assigns the anchors to objects; None if it is not known.
        levels: names of the feature maps that have anchors, such as p3.
    """

    iou: float
    min_size: float
    proposal_iou: float
    assigner: Any
    levels: Sequence[str]


@dataclass
class Step:
    """A stage as the batch went through it.

    Attributes:
        names: the stages that an object may be lost at; there are several if ``choose`` tells which.
        alive: (B, G) bool, whether a box that the stage keeps fits the object.
        why: the deciding numbers of a lost object, as a clause, for its image and its number.
    """

    names: tuple[str, ...]
    alive: Tensor
    why: Callable[[int, int], str]
    choose: Callable[[int, int], str] | None = None


@dataclass
class Trail:
    """The stages of a batch.

    Attributes:
        events: what the detector told.
        truth: the objects.
        names: of the objects, such as 'bus 3', image by image.
        classes: names by label.
        rules: when a box fits.
        steps: in the order of the pipeline.
        numbers: (B, G) each; NaN where a number is not known. Keys are columns of ``objects.csv``.
    """

    events: Sequence[Event]
    truth: GroundTruth
    names: Sequence[Sequence[str]]
    classes: Sequence[str]
    rules: Rules
    steps: list[Step] = field(default_factory=list)
    numbers: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sides = (self.truth.boxes[..., 2:] - self.truth.boxes[..., :2]).clamp(min=0)
        size = self.numbers['network_size'] = sides.prod(dim=-1).sqrt()
        self._add(RESIZING, size >= self.rules.min_size, lambda b, g: _pixels(sides[b, g]))
        levels = [event for event in self.events if isinstance(event, TopK)]
        for event in self.events:
            if isinstance(event, ProposalsSelected):
                self._add_anchors(levels, RPN_SCORE)
                self._add_proposals(event)
            elif isinstance(event, DetectionsSelected):
                if self.proposals is None:
                    self._add_anchors(levels, ANCHOR_TOP_K)
                self._add_detections(event)
            elif isinstance(event, Filtered):
                self._add_filter(event)

    def lost_at(self) -> Tensor:
        """(B, G) int64: the first step after which the object is never alive again; S if it is alive to the end."""
        alive = torch.stack([step.alive for step in self.steps])
        number = torch.arange(1, len(self.steps) + 1, device=alive.device)[:, None, None]
        return (alive * number).amax(dim=0)

    def explain(self, step: int, image: int, index: int) -> tuple[str, str]:
        """The name of the stage that lost an object, and the deciding numbers."""
        lost = self.steps[step]
        name = lost.choose(image, index) if lost.choose is not None else lost.names[0]
        return name, lost.why(image, index)

    @cached_property
    def anchors(self) -> Tensor | None:
        """(A, 4) the anchors of all levels."""
        found = [torch.cat(list(event.boxes)) for event in self.events if isinstance(event, Anchors)]
        return found[-1] if found else None

    @cached_property
    def proposals(self) -> ProposalsSelected | None:
        """The last selection of proposals."""
        return next((event for event in reversed(self.events) if isinstance(event, ProposalsSelected)), None)

    @cached_property
    def detections(self) -> DetectionsSelected | None:
        """The last selection of detections."""
        return next((event for event in reversed(self.events) if isinstance(event, DetectionsSelected)), None)

    @cached_property
    def top(self) -> Tensor | None:
        """(B, N) the anchors that the top-k of their levels keep, as positions in ``anchors``; None if not known."""
        levels = [event for event in self.events if isinstance(event, TopK)]
        if self.anchors is None or not levels or sum(x.scores.shape[1] for x in levels) != len(self.anchors):
            return None
        starts = torch.tensor([0] + [x.scores.shape[1] for x in levels]).cumsum(0).tolist()
        return torch.cat([x.index + start for x, start in zip(levels, starts, strict=False)], dim=1)

    def anchor_scores(self, image: int) -> tuple[Tensor, Tensor]:
        """(A,) the scores of all anchors in an image, and (A,) their levels."""
        levels = [event for event in self.events if isinstance(event, TopK)]
        scores = torch.cat([as_probability(event.scores[image]) for event in levels])
        counts = torch.tensor([event.scores.shape[1] for event in levels])
        return scores, torch.repeat_interleave(torch.arange(len(levels)), counts).to(scores.device)

    def nearest_anchors(self, image: int, index: int, count: int) -> tuple[Tensor, Tensor]:
        """IoU and positions of the anchors that overlap an object most."""
        assert self.anchors is not None, 'no anchors are known'
        iou = box_iou(self.truth.boxes[image, index][None], self.anchors)[0]
        return iou.topk(min(count, len(iou)))

    def _add(
        self, name: str | tuple[str, ...], alive: Tensor, why: Callable[[int, int], str],
        choose: Callable[[int, int], str] | None = None,
    ) -> None:  # fmt: skip
        names = name if isinstance(name, tuple) else (name,)
        self.steps.append(Step(names, alive & self.truth.valid, why, choose))

    # From anchors to proposals

    def _add_anchors(self, levels: Sequence[TopK], name: str) -> None:
        anchors, truth, assigner = self.anchors, self.truth, self.rules.assigner
        if anchors is None or assigner is None or any(step.names[0] == NO_ANCHOR for step in self.steps):
            return
        best = self.numbers['anchor_iou'] = ops.max_iou(anchors, truth.boxes, truth.valid).gt_iou
        limit: Any = getattr(assigner, 'pos_iou_thr', None)
        assigned = None if limit is not None else assigner.assign_batch(anchors, truth)
        self._add(
            NO_ANCHOR,
            best >= limit if assigned is None else self._is_assigned(assigned).any(dim=-1),
            lambda b, g: (
                f'the nearest anchor has IoU {best[b, g]:.2f} with it'
                + (f', and {limit:g} is needed' if limit is not None else ', and the assigner gives it none')
            ),
        )
        if self.top is None:
            return
        self.top_iou = box_iou(truth.boxes, anchors[self.top])
        self.top_fits = (
            self.top_iou >= limit
            if assigned is None
            else self._is_assigned(assigned).gather(2, self.top[:, None].expand(-1, truth.boxes.shape[1], -1))
        )
        place = torch.cat([torch.arange(1, x.index.shape[1] + 1, device=best.device) for x in levels]).float()
        rank, at = torch.where(self.top_fits, place, torch.inf).min(dim=-1)
        scores = torch.cat([as_probability(x.scores).gather(1, x.index) for x in levels], dim=1)
        self.numbers['anchor_rank'] = torch.where(rank.isfinite(), rank, torch.nan)
        self.numbers['anchor_score'] = torch.where(rank.isfinite(), scores.gather(1, at), torch.nan)

        def why(b: int, g: int) -> str:
            iou = box_iou(truth.boxes[b, g][None], anchors)[0]
            fits = iou >= limit if assigned is None else (assigned.label[b] == 1) & (assigned.gt_index[b] == g)
            ranks = []
            for number, (level, part) in enumerate(
                zip(levels, fits.split([len(x.scores[b]) for x in levels]), strict=True)
            ):
                if part.any():
                    score = level.scores[b][part].max()
                    rank = 1 + int((level.scores[b] > score).sum())
                    ranks.append((rank, number, float(as_probability(level.scores[b])[part].max()), level))
            if not ranks:
                return f'no anchor fits, the nearest has IoU {best[b, g]:.2f}'
            rank, number, best_score, level = min(ranks, key=lambda found: found[0] - found[3].index.shape[1])
            self.numbers['anchor_rank'][b, g] = rank
            self.numbers['anchor_score'][b, g] = best_score
            return (
                f'the best of {int(fits.sum())} anchors that fit has rank {rank:,} of {level.scores.shape[1]:,} in '
                f'{self.rules.levels[number]}, score {best_score:.3f}, and {level.index.shape[1]:,} stay'
            )

        self._add(name, self.top_fits.any(dim=-1), why)

    def _is_assigned(self, assigned: Any) -> Tensor:
        """(B, G, A) bool."""
        number = torch.arange(self.truth.boxes.shape[1], device=assigned.label.device)[None, :, None]
        return (assigned.gt_index[:, None] == number) & (assigned.label == 1)[:, None]

    def _add_proposals(self, told: ProposalsSelected) -> None:
        truth = self.truth
        iou = box_iou(truth.boxes, told.boxes)
        fits = iou >= self.rules.proposal_iou
        legal, kept = told.legal[:, None], told.kept[:, None]
        at = told.index[:, None].expand(-1, truth.boxes.shape[1], -1)
        self.iou = iou.gather(2, at).masked_fill(~told.valid[:, None], 0)
        self.numbers['decoded_iou'] = iou.amax(dim=-1)
        self.numbers['proposal_iou'] = self.iou.amax(dim=-1)

        def regression(b: int, g: int) -> str:
            known = self.top is not None and self.top.shape[1] == iou.shape[2] and hasattr(self, 'top_fits')
            if not known or not self.top_fits[b, g].any():
                return f'the best decoded box has IoU {iou[b, g].max():.2f} with it'
            best = int(torch.where(self.top_fits[b, g], iou[b, g], -1).argmax())
            return f'IoU {self.top_iou[b, g, best]:.2f} as an anchor, {iou[b, g, best]:.2f} after decoding'

        def small(b: int, g: int) -> str:
            best = int(torch.where(fits[b, g], iou[b, g], -1).argmax())
            return f'its best proposal is {_pixels(told.boxes[b, best, 2:] - told.boxes[b, best, :2])}'

        def suppressed(b: int, g: int) -> str:
            best = int(torch.where(fits[b, g] & told.legal[b], told.scores[b], -torch.inf).argmax())
            rivals = told.kept[b] & (told.level == told.level[best])
            return self._suppressor('a proposal', b, told.boxes[b], told.scores[b], best, rivals, told.nms_iou_thr)

        def outnumbered(b: int, g: int) -> str:
            score = told.scores[b][fits[b, g] & told.kept[b]].max()
            rank = 1 + int((told.scores[b][told.kept[b]] > score).sum())
            return (
                f'its best proposal has rank {rank:,} of {int(told.kept[b].sum()):,}, and {told.index.shape[1]:,} stay'
            )

        self._add(REGRESSION, fits.any(dim=-1), regression)
        self._add(PROPOSAL_SIZE, (fits & legal).any(dim=-1), small)
        self._add(PROPOSAL_NMS, (fits & kept).any(dim=-1), suppressed)
        self._add(PROPOSAL_TOP_K, (self.iou >= self.rules.proposal_iou).any(dim=-1), outnumbered)

    # From the head to detections

    def _add_detections(self, told: DetectionsSelected) -> None:
        truth, needed = self.truth, self.rules.iou
        image = torch.arange(len(truth.labels), device=truth.labels.device)[:, None]
        own_box, own_score, candidate, kept = (
            x[image, :, truth.labels] for x in (told.boxes, told.scores.float(), told.candidate, told.kept)
        )
        cut = torch.zeros_like(told.kept.flatten(1)).scatter(1, told.index, told.there).view_as(told.kept)
        chosen = cut[image, :, truth.labels]
        valid = told.valid[:, None]
        iou = box_iou(truth.boxes[:, :, None], own_box).squeeze(2).masked_fill(~valid, 0)
        self.own_iou = iou
        best, label = told.scores.float().max(dim=2)
        background = 1 - told.scores.float().sum(dim=2)
        called = (label[:, None] == truth.labels[..., None]) & (best > background)[:, None] & valid
        before = self._before(told)
        right = iou >= needed
        fits = (right if before is None else self._fits(before)) & valid
        self.numbers['refined_iou'] = iou.amax(dim=-1)
        likely, at = torch.where(fits, own_score, -torch.inf).max(dim=-1)
        there = likely.isfinite()
        others = told.scores.float().gather(1, at[..., None].expand(-1, -1, told.scores.shape[2]))
        others = others.scatter(2, truth.labels[..., None], -torch.inf)
        other, other_label = others.max(dim=2)
        for name, values in (
            ('own_score', likely),
            ('background_score', background.gather(1, at)),
            ('other_class', other_label.float()),
            ('other_score', other),
        ):
            self.numbers[name] = torch.where(there & values.isfinite(), values, torch.nan)

        def choose(b: int, g: int) -> str:
            is_other = self.numbers['other_score'][b, g] > self.numbers['background_score'][b, g]
            return OTHER_CLASS if is_other else BACKGROUND

        def called_so(b: int, g: int) -> str:
            values = {
                'background': float(self.numbers['background_score'][b, g]),
                self.classes[int(truth.labels[b, g])]: float(self.numbers['own_score'][b, g]),
            }
            if choose(b, g) == OTHER_CLASS:
                name = self.classes[int(self.numbers['other_class'][b, g])]
                values = {name: float(self.numbers['other_score'][b, g]), **values}
            return 'scores ' + ', '.join(f'{name} {value:.3f}' for name, value in values.items())

        def refined(b: int, g: int) -> str:
            some = fits[b, g] & called[b, g] if before is not None else valid[b, 0]
            best = int(torch.where(some, iou[b, g], -1).argmax())
            after = f'{iou[b, g, best]:.2f} after refinement, and {needed:g} is needed'
            return f'IoU {after}' if before is None else f'IoU {before[b, g, best]:.2f} before and {after}'

        def low(b: int, g: int) -> str:
            best = int(torch.where(right[b, g] & called[b, g], own_score[b, g], -torch.inf).argmax())
            score = float(own_score[b, g, best])
            if score > told.score_thr:
                return f'score {score:.3f}, but its box of {_pixels(own_box[b, g, best, 2:] - own_box[b, g, best, :2])}'
            return f'score {score:.3f}, and above {told.score_thr:g} is needed'

        def suppressed(b: int, g: int) -> str:
            best = int(torch.where(right[b, g] & candidate[b, g], own_score[b, g], -torch.inf).argmax())
            args = own_box[b, g], own_score[b, g], best, kept[b, g]
            return self._suppressor('a detection', b, *args, told.nms_iou_thr)

        def outnumbered(b: int, g: int) -> str:
            score = own_score[b, g][right[b, g] & kept[b, g]].max()
            rank = 1 + int((told.scores[b][told.kept[b]] > score).sum())
            return f'its detection has rank {rank:,} of {int(told.kept[b].sum()):,}, and {told.index.shape[1]:,} stay'

        classified = ((BACKGROUND, OTHER_CLASS), (fits & called).any(dim=-1), called_so, choose)
        if before is None:  # nothing is known of the boxes before the head, so its box is looked at first
            self._add(REFINEMENT, right.any(dim=-1), refined)
            self._add(*classified)
        else:
            self._add(*classified)
            self._add(REFINEMENT, (right & called).any(dim=-1), refined)
        self._add(SCORE, (right & candidate).any(dim=-1), low)
        self._add(CLASS_NMS, (right & kept).any(dim=-1), suppressed)
        self._add(CUT, (right & chosen).any(dim=-1), outnumbered)

    def _before(self, told: DetectionsSelected) -> Tensor | None:
        """(B, G, P) IoU of the objects with the boxes that the head was given; None if they are not known."""
        count = told.valid.shape[1]
        if self.proposals is not None:
            return self.iou if self.iou.shape[2] == count else None
        known = hasattr(self, 'top_fits') and self.top_fits.shape[2] == count
        return self.top_iou if known else None

    def _fits(self, before: Tensor) -> Tensor:
        return before >= self.rules.proposal_iou if self.proposals is not None else self.top_fits

    def _add_filter(self, told: Filtered) -> None:
        iou = box_iou(self.truth.boxes, told.boxes)
        fits = iou >= (self.rules.proposal_iou if told.labels is None else self.rules.iou)
        if told.labels is not None:
            fits &= told.labels[:, None] == self.truth.labels[..., None]
        self._add(
            told.name,
            (fits & told.kept[:, None]).any(dim=-1),
            lambda b, g: (
                f'{int(fits[b, g].sum())} boxes that fit it are dropped'
                if fits[b, g].any()
                else f'no box fits it, the nearest has IoU {iou[b, g].max():.2f}'
            ),
        )

    def _suppressor(
        self, what: str, image: int, boxes: Tensor, scores: Tensor, index: int, rivals: Tensor, limit: float
    ) -> str:
        """The box that suppressed box ``index``: the best of ``rivals``, the kept boxes, that overlap it too much."""
        iou = box_iou(boxes[index][None], boxes)[0]
        guilty = rivals & (iou > limit) & (scores >= scores[index])
        if not guilty.any():
            return f'suppressed by {what} of its score'
        by = int(torch.where(guilty, scores, -torch.inf).argmax())
        objects = box_iou(boxes[by][None], self.truth.boxes[image])[0]
        best = int(objects.argmax())
        fits = f'fits {self.names[image][best]}' if objects[best] >= self.rules.proposal_iou else 'fits no object'
        return f'suppressed by {what} of IoU {iou[by]:.2f} with it that {fits}; above {limit:g} is too much'


def as_probability(scores: Tensor) -> Tensor:
    """Scores as they are if all lie between 0 and 1; otherwise they are logits, and go through a sigmoid."""
    scores = scores.float()
    return torch.where(((scores < 0) | (scores > 1)).any(), scores.sigmoid(), scores)


def _pixels(sides: Tensor) -> str:
    return f'{sides[0]:.1f} x {sides[1]:.1f} pixels in the network'
