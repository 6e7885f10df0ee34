"""What is kept of one training step.

Shapes: B images, L levels, N boxes an image (anchors, or proposals with the ground truth), R sampled RoIs.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from frdet.insight.step.layers import LayerStats, StageStats
from frdet.insight.step.preparing import Prepared


@dataclass(frozen=True)
class Matching:
    """What became of the boxes of one image.

    Attributes:
        boxes: (N, 4).
        level: (N,) index of the feature map.
        label: (N,) 1 positive, 0 negative, -1 ignored.
        gt_index: (N,) the ground truth of a positive.
        iou: (N,) with the ground truth that fits best.
        sampled: (N,) bool, trained on.
        is_truth: (N,) bool, a ground truth that joined the proposals.
    """

    boxes: Tensor
    level: Tensor
    label: Tensor
    gt_index: Tensor
    iou: Tensor
    sampled: Tensor
    is_truth: Tensor


@dataclass(frozen=True)
class Selection:
    """Proposals of one image on their way, all levels in one row of n candidates: those that passed the top-k.

    Attributes:
        boxes: (n, 4) clipped.
        scores: (n,) objectness 0 to 1.
        level: (n,).
        clipped, small, suppressed, kept: (n,) bool; a candidate that is none of the last three lost against better ones
            in the choice over all levels.
        proposals: boxes that went on.
    """

    boxes: Tensor
    scores: Tensor
    level: Tensor
    clipped: Tensor
    small: Tensor
    suppressed: Tensor
    kept: Tensor
    proposals: Tensor


@dataclass(frozen=True)
class RoIs:
    """The RoIs that the second stage was trained on, of one image.

    Attributes:
        boxes: (R, 4), refined: (R, 4) by the deltas of the true class; targets: (R, 4) the ground truth of positives.
        level: (R,) that they were pooled from.
        label: (R,) with the background last; positive: (R,) bool.
        scores: (R, K + 1) probabilities.
        pooled: (R, C, S, S).
    """

    boxes: Tensor
    refined: Tensor
    targets: Tensor
    level: Tensor
    label: Tensor
    positive: Tensor
    scores: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Loss:
    """A loss, of the class ``kind``: its value is weight * total / normaliser, over ``count`` terms."""

    name: str
    kind: str
    value: float
    normaliser: float
    weight: float
    count: int

    @property
    def total(self) -> float:
        return self.value * self.normaliser / self.weight if self.weight else 0.0


@dataclass(frozen=True)
class Record:
    """One training step."""

    prepared: Prepared
    samples: list[Any]
    seconds: dict[str, float]
    shapes: dict[str, list[tuple[int, ...]]]
    level_names: list[str]
    objectness: list[Tensor]  # a level each, (B, H, W, A), 0 to 1
    anchors: list[Matching]
    selections: list[Selection]
    matched: list[Matching]
    rois: list[RoIs]
    losses: list[Loss]
    logged: dict[str, float]
    layers: dict[str, LayerStats]
    stages: dict[str, StageStats]
    lr: float
