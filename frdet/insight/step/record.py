"""What is kept of one training step.

Shapes: B images, L levels, N boxes an image (anchors, or proposals with the ground truth), R sampled RoIs.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from frdet.insight.step.layers import LayerStats, StageStats
from frdet.insight.step.preparing import Prepared

#: Titles of the sections that not every model has something for.
DATA, ANCHORS, PROPOSALS = 'Data', 'Anchors and their matches', 'Objectness and proposals'
ROIS = 'RoIs and their refinement'


@dataclass(frozen=True)
class Matching:
    """What became of the boxes of one image."""

    boxes: Tensor  # (N, 4)
    level: Tensor  # (N,) index of the feature map
    label: Tensor  # (N,) 1 positive, 0 negative, -1 ignored
    gt_index: Tensor  # (N,) the ground truth of a positive
    iou: Tensor  # (N,) with the ground truth that fits best
    sampled: Tensor  # (N,) bool, trained on
    is_truth: Tensor  # (N,) bool, a ground truth that joined the proposals


@dataclass(frozen=True)
class Selection:
    """Proposals of one image on their way, all levels in one row of n candidates: those that passed the top-k.

    A candidate that is neither small nor suppressed nor kept lost against better ones in the choice over all levels.
    """

    boxes: Tensor  # (n, 4) clipped
    scores: Tensor  # (n,) objectness 0 to 1
    level: Tensor  # (n,)
    clipped: Tensor  # (n,) bool, as the next three
    small: Tensor
    suppressed: Tensor
    kept: Tensor
    proposals: Tensor  # (P, 4) boxes that went on


@dataclass(frozen=True)
class RoIs:
    """The RoIs that the second stage was trained on, of one image."""

    boxes: Tensor  # (R, 4)
    refined: Tensor  # (R, 4) by the deltas of the true class
    targets: Tensor  # (R, 4) the ground truth of positives
    level: Tensor  # (R,) that they were pooled from
    label: Tensor  # (R,) with the background last
    positive: Tensor  # (R,) bool
    scores: Tensor  # (R, K + 1) probabilities
    pooled: Tensor  # (R, C, S, S)


@dataclass(frozen=True)
class Loss:
    """A loss of a step: its value is weight * total / normaliser, over ``count`` terms.

    These are None where the module is not known, or was not called as frdet's losses are.
    """

    name: str  # in the log
    value: float
    part: str = ''  # the module that gave it, such as rpn_head.loss_cls; empty where the model changed its result
    kind: str = ''  # class of that module
    normaliser: float | None = None
    weight: float | None = None
    count: int | None = None

    @property
    def total(self) -> float | None:
        return self.value * self.normaliser / self.weight if self.normaliser is not None and self.weight else None


@dataclass(frozen=True)
class Record:
    """One training step; lists have an entry for each image, and are empty where the model has nothing of the kind."""

    prepared: Prepared
    samples: list[Any]
    input_shape: tuple[int, int]  # (height, width) of the padded batch; zeros where it is no images
    seconds: dict[str, float]  # of the calls of each part
    shapes: dict[str, list[tuple[int, ...]]]  # of the last result of each part
    level_names: list[str]
    objectness: list[Tensor]  # a level each, (B, H, W, A), 0 to 1; of the best class where there are several
    anchors: list[Matching]
    selections: list[Selection]
    matched: list[Matching]
    rois: list[RoIs]
    losses: list[Loss]
    logged: dict[str, float]
    layers: dict[str, LayerStats]
    stages: dict[str, StageStats]
    lr: float
    absent: dict[str, str]  # sections that have nothing to show, and why

    @property
    def not_shown(self) -> str:
        """Which sections a page of this step has not, and why, in a line; empty where it has all."""
        titles: dict[str, list[str]] = {}
        for title, reason in self.absent.items():
            titles.setdefault(reason, []).append(title)
        return '; '.join(f'{", ".join(several)} ({reason})' for reason, several in titles.items())

    def image_name(self, image: int) -> str:
        return f'image {self.samples[image].get("img_id", image)}'

    def class_name(self, label: int) -> str:
        """Name of a label; its number where it has none, 'background' for the one after the model's classes."""
        if label == getattr(self.prepared.model, 'num_classes', None):
            return 'background'
        return self.prepared.classes[label] if label < len(self.prepared.classes) else str(label)

    def describe(self, image: int, index: int) -> str:
        """A ground truth in words: ``gt 3 (dog, 12x9 pixels)``."""
        truth = self.samples[image].gt_instances
        x1, y1, x2, y2 = truth.bboxes[index].tolist()
        return f'gt {index} ({self.class_name(int(truth.labels[index]))}, {x2 - x1:.0f}x{y2 - y1:.0f} pixels)'
