"""The stages of an object once more: a detector that says what is written, in loops over single boxes.

It follows the definition alone: an object is lost at the first stage after which no box that stays ever fits it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.insight.trace.losing import CAT, CLASSES, DOG, SIDE, Box, Said, Scene, Thing
from tests.insight.trace.spoken import FAINT, STRIDES, dull

NAMES = (
    'no anchor', 'RPN score', 'RPN regression', 'proposal size', 'proposal NMS', 'proposal top-k', 'class',
    'box refinement', 'score threshold', 'class NMS', 'detections cut',
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of the detector and of the metric."""

    anchor_iou: float = 0.7
    pre_nms: int
    min_side: float
    proposal_nms: float
    post_nms: int
    proposal_iou: float = 0.5
    score_thr: float
    class_nms: float
    max_per_image: int
    max_dets: int
    iou: float = 0.5
    min_size: float = 8.0


@dataclass(eq=False)
class Candidate:
    """A box on its way: an anchor, a proposal, or the box of one class."""

    level: int
    anchor: Box
    logit: float
    proposal: Box
    scores: list[float]
    refined: list[Box]


@dataclass(eq=False)
class Found:
    """The box that a candidate becomes for one class."""

    label: int
    score: float
    box: Box
    of: Candidate


def iou(a: Box, b: Box) -> float:
    """Intersection over union."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def candidates(scene: Scene) -> list[list[Candidate]]:
    """Of every level, the best logit first."""
    said = {one.anchor: one for one in scene.said.values()}
    levels = []
    for level, stride in enumerate(STRIDES):
        listed = []
        for row in range(SIDE // stride):
            for column in range(SIDE // stride):
                anchor = (column * stride, row * stride, (column + 1) * stride, (row + 1) * stride)
                place = (level, column, row)
                one = said.get(place, Said(place, dull(level, len(listed)), {}))
                scores = [one.scores.get(label, FAINT) for label in (CAT, DOG)]
                boxes = [_clip(box) for box in one.boxes()]
                listed.append(Candidate(level, anchor, one.logit, _clip(one.proposal), scores, boxes))
        levels.append(sorted(listed, key=lambda c: -c.logit))
    return levels


def _clip(box: Box) -> Box:
    return tuple(min(max(value, 0), SIDE) for value in box)


def suppress(boxes: Sequence[Any], box_of: Any, score_of: Any, group_of: Any, limit: float) -> list[Any]:
    """Greedy NMS within groups, the best first."""
    kept: list[Any] = []
    for one in sorted(boxes, key=lambda b: -score_of(b)):
        if all(group_of(k) != group_of(one) or iou(box_of(k), box_of(one)) <= limit for k in kept):
            kept.append(one)
    return kept


def follow(scene: Scene, s: Settings) -> dict[str, dict[str, Any]]:
    """Cells of ``objects.csv`` for every thing by its name."""
    levels = candidates(scene)
    top = [one for level in levels for one in level[: s.pre_nms]]
    large = [c for c in top if min(c.proposal[2] - c.proposal[0], c.proposal[3] - c.proposal[1]) > s.min_side]
    apart = suppress(large, lambda c: c.proposal, lambda c: c.logit, lambda c: c.level, s.proposal_nms)
    given = apart[: s.post_nms]
    every = [Found(label, c.scores[label], c.refined[label], c) for c in given for label in (CAT, DOG)]
    likely = [f for f in every if f.score > s.score_thr]
    separate = suppress(likely, lambda f: f.box, lambda f: f.score, lambda f: f.label, s.class_nms)
    detections = separate[: s.max_per_image]
    matches = match(detections, scene, s)

    rows = {}
    for name, thing in scene.things.items():

        def right(found: Sequence[Found], thing: Thing = thing) -> list[Found]:
            return [f for f in found if f.label == thing.label and iou(f.box, thing.box) >= s.iou]

        def fit(boxes: Sequence[Candidate], thing: Thing = thing) -> list[Candidate]:
            return [c for c in boxes if iou(c.proposal, thing.box) >= s.proposal_iou]

        anchors = [c for level in levels for c in level if iou(c.anchor, thing.box) >= s.anchor_iou]
        called = [c for c in given if c.scores[thing.label] > max(_others(c, thing.label))]
        alive = [
            anchors, [c for c in top if c in anchors], fit(top), fit(large), fit(apart), fit(given),
            fit(called), right([f for f in every if f.of in called]), right(likely), right(separate), right(detections),
        ]  # fmt: skip
        after = [number for number, left in enumerate(alive, start=1) if left]
        pooled = max(fit(given), key=lambda c: c.scores[thing.label], default=None)
        fitting = right(detections)
        if any(found is thing for found in matches.values()):
            stage = 'found'
        elif fitting:
            stage = 'outranked' if max(fitting, key=lambda f: f.score) in matches else 'detections cut'
        elif not after:
            x1, y1, x2, y2 = thing.box
            stage = 'resizing' if math.sqrt((x2 - x1) * (y2 - y1)) < s.min_size else NAMES[0]
        else:
            stage = NAMES[after[-1]]
        if stage == 'class':
            background, other = _others(pooled, thing.label)
            stage = 'another class' if other > background else 'background'
        rows[name] = {
            'stage': stage,
            'anchor_iou': max(iou(c.anchor, thing.box) for level in levels for c in level),
            'anchor_rank': min((1 + level.index(c) for level in levels for c in level if c in anchors), default=None),
            'decoded_iou': max(iou(c.proposal, thing.box) for c in top),
            'proposal_iou': max(iou(c.proposal, thing.box) for c in given),
            'own_score': pooled and pooled.scores[thing.label],
            'background_score': pooled and _others(pooled, thing.label)[0],
            'other_score': pooled and _others(pooled, thing.label)[1],
            'refined_iou': max(iou(f.box, thing.box) for f in every if f.label == thing.label),
        }
    return rows


def _others(candidate: Candidate, label: int) -> tuple[float, float]:
    """Scores of the background and of the other class."""
    return 1 - sum(candidate.scores), candidate.scores[1 - label]


def match(detections: Sequence[Found], scene: Scene, s: Settings) -> dict[Found, Thing | None]:
    """COCO's matches of the detections that count: each takes the free object of its class that it overlaps most."""
    matches: dict[Found, Thing | None] = {}
    for label in range(len(CLASSES)):
        free = [thing for thing in scene.things.values() if thing.label == label]
        for one in [f for f in detections if f.label == label][: s.max_dets]:
            best = max(free, key=lambda thing: iou(one.box, thing.box), default=None)
            matches[one] = best if best is not None and iou(one.box, best.box) >= s.iou else None
            free = [thing for thing in free if thing is not matches[one]]
    return matches
