"""Follows the objects of a batch through the selections that a detector told; see ``task_modules/observing.py``.

B images, G objects an image (padded), A anchors of all levels, N boxes before NMS, P boxes at the head, K classes. All
boxes are in pixels of the network's input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from frdet import ops
from frdet.insight.trace.stages import RESIZING
from frdet.models.task_modules.observing import Anchors, DetectionsSelected, Event, ProposalsSelected, TopK
from frdet.structures import GroundTruth, box_iou


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


class Step(NamedTuple):
    """A stage as a batch went through it.

    Attributes:
        names: the stages that an object may be lost at. If there are two, ``choose`` tells which.
        alive: (B, G) bool, whether a box that the stage keeps fits the object.
        why: the deciding numbers of an object that is lost there, as a clause, for its image and its number.
    """

    names: Sequence[str]
    alive: Tensor
    why: Callable[[int, int], str]
    choose: Callable[[int, int], str] | None = None


@dataclass
class Trail:
    """The way of a batch. ``follow`` in ``following.py`` adds the steps.

    Attributes:
        events: what the detector told.
        truth: the objects.
        names: of the objects, such as 'bus 3', image by image.
        classes: names by label.
        rules: when a box fits.
        steps: in the order of the pipeline.
        numbers: (B, G) each, NaN where a number is not known. Keys are columns of ``objects.csv``.
        top_iou, top_fits: (B, G, N) IoU of the objects with the anchors that the top-k keeps, and whether these fit.
        given_iou, given_fits: (B, G, P) the same for the boxes that the head is given.
    """

    events: Sequence[Event]
    truth: GroundTruth
    names: Sequence[Sequence[str]]
    classes: Sequence[str]
    rules: Rules
    steps: list[Step] = field(default_factory=list)
    numbers: dict[str, Tensor] = field(default_factory=dict)
    top_iou: Tensor | None = None
    top_fits: Tensor | None = None
    given_iou: Tensor | None = None
    given_fits: Tensor | None = None

    def __post_init__(self) -> None:
        self.levels = [event for event in self.events if isinstance(event, TopK)]
        self.proposals = next((e for e in reversed(self.events) if isinstance(e, ProposalsSelected)), None)
        self.detections = next((e for e in reversed(self.events) if isinstance(e, DetectionsSelected)), None)
        grids = [torch.cat(list(event.boxes)) for event in self.events if isinstance(event, Anchors)]
        self.anchors = grids[-1] if grids else None
        self.top = self._top()
        sides = (self.truth.boxes[..., 2:] - self.truth.boxes[..., :2]).clamp(min=0)
        size = self.numbers['network_size'] = sides.prod(dim=-1).sqrt()
        self.add(RESIZING, size >= self.rules.min_size, lambda b, g: pixels(sides[b, g]))

    def _top(self) -> Tensor | None:
        """(B, N) positions of the anchors that the top-k of their levels keep; None if they are not known."""
        counts = [event.scores.shape[1] for event in self.levels]
        if self.anchors is None or sum(counts) != len(self.anchors):
            return None
        starts = torch.tensor([0, *counts]).cumsum(0).tolist()
        return torch.cat([event.index + start for event, start in zip(self.levels, starts, strict=False)], dim=1)

    def add(
        self,
        name: str | Sequence[str],
        alive: Tensor,
        why: Callable[[int, int], str],
        choose: Callable[[int, int], str] | None = None,
    ) -> None:
        """Add a step; see ``Step``."""
        self.steps.append(Step([name] if isinstance(name, str) else name, alive & self.truth.valid, why, choose))

    def lost_at(self) -> Tensor:
        """(B, G) int64: the first step after which the object is never alive again; S if it is alive to the end."""
        alive = torch.stack([step.alive for step in self.steps])
        number = torch.arange(1, len(self.steps) + 1, device=alive.device)[:, None, None]
        return (alive * number).amax(dim=0)

    def explain(self, step: int, image: int, index: int) -> tuple[str, str]:
        """The name of the stage that lost an object, and the deciding numbers."""
        lost = self.steps[step]
        return lost.choose(image, index) if lost.choose else lost.names[0], lost.why(image, index)

    def anchor_ious(self, image: int, index: int) -> Tensor:
        """(A,) IoU of an object with all anchors, by the operator that the assigners use, too."""
        assert self.anchors is not None, 'no anchors are known'
        return ops.max_iou(self.anchors, self.truth.boxes[image, index][None]).iou

    def anchor_scores(self, image: int, anchors: Tensor) -> Tensor:
        """(n,) the scores of anchors at the positions ``anchors`` (n,), as probabilities."""
        parts = [as_probability(event.scores[image], event.scores[image]) for event in self.levels]
        return torch.cat(parts)[anchors]

    def level_of(self, anchors: Tensor) -> list[str]:
        """The names of the levels of anchors at the positions ``anchors`` (n,)."""
        ends = torch.tensor([event.scores.shape[1] for event in self.levels]).cumsum(0).to(anchors.device)
        return [self.level_name(number) for number in torch.bucketize(anchors, ends, right=True).tolist()]

    def level_name(self, number: int) -> str:
        """Such as p3; 'level 1' where strides are not known."""
        return self.rules.levels[number] if number < len(self.rules.levels) else f'level {number}'

    def suppressor(
        self,
        what: str,
        image: int,
        index: int,
        boxes: Tensor,
        scores: Tensor,
        box: int,
        rivals: Tensor,
        *,
        limit: float,
        needed: float,
    ) -> str:
        """Says which of ``rivals``, the boxes that NMS keeps, suppressed a box of an object: the best of the guilty.

        Args:
            what: the kind of the boxes, with an article.
            image, index: the object.
            box: the place of its box in ``boxes``.
            boxes, scores, rivals: (n, 4), (n,) and (n,) bool of the boxes that may suppress each other.
            limit: the IoU above which NMS suppresses.
            needed: the IoU from which on a box fits an object.
        """
        iou = box_iou(boxes[box][None], boxes)[0]
        guilty = rivals & (iou > limit) & (scores >= scores[box])
        if not guilty.any():
            return f'suppressed by {what}'
        by = int(torch.where(guilty, scores, -torch.inf).argmax())
        objects = box_iou(boxes[by][None], self.truth.boxes[image])[0]
        best = int(objects.argmax())
        name = 'this object' if best == index else self.names[image][best]
        verb = 'fits' if objects[best] >= needed else 'fits no object, and overlaps'
        about = f'{verb} {name} by IoU {objects[best]:.2f}' if objects[best] > 0 else 'overlaps no object'
        return f'suppressed by {what} of IoU {iou[by]:.2f} with it that {about}'


def as_probability(scores: Tensor, level: Tensor) -> Tensor:
    """``scores`` as they are if all of ``level`` are between 0 and 1. Otherwise they are logits, for a sigmoid."""
    lowest, highest = level.aminmax()
    return torch.where((lowest < 0) | (highest > 1), scores.float().sigmoid(), scores.float())


def pixels(sides: Tensor) -> str:
    """Width and height in words."""
    return f'{sides[0]:.1f} x {sides[1]:.1f} pixels in the network'
