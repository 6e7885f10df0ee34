"""The record of one training step.

Shapes: B images, L levels, N boxes an image (anchors, or proposals with the ground truth), R sampled RoIs.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import Tensor

from frdet.insight.step.layers import LayerStats, StageStats

#: Titles of the sections that some models do not have.
DATA, ANCHORS, PROPOSALS = 'Data', 'Anchors and their matches', 'Objectness and proposals'
ROIS = 'RoIs and their refinement'


@dataclass(frozen=True)
class Prepared:
    """A training step before it is made."""

    cfg: Config
    model: Any  # in training mode, on its device
    weights: str  # their origin, in words
    optim_wrapper: OptimWrapper  # its learning rate is scaled as in training
    dataset: Any
    records: list[dict[str, Any]]  # the data of each image before the pipeline
    items: list[dict[str, Any]]  # results of the pipeline: ``inputs`` and ``data_samples``
    classes: tuple[str, ...]  # names of the labels

    @property
    def batch_size(self) -> int:
        """Number of images that one process loads for an iteration of training."""
        loader = self.cfg.train_dataloader
        return int(loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size') or 1)


@dataclass(frozen=True)
class Matching:
    """Labels and matches of the boxes of one image."""

    boxes: Tensor  # (N, 4)
    level: Tensor  # (N,) index of the feature map
    label: Tensor  # (N,) 1 positive, 0 negative, -1 ignored
    gt_index: Tensor  # (N,) the ground truth of a positive
    iou: Tensor  # (N,) the best with any ground truth
    sampled: Tensor  # (N,) bool, whether the losses see it
    is_truth: Tensor  # (N,) bool, a ground truth that joined the proposals


@dataclass(frozen=True)
class Selection:
    """The n candidates of one image that passed the top-k, all levels together.

    A candidate that is not small, suppressed or kept was not among the best of all levels.
    """

    boxes: Tensor  # (n, 4) clipped
    scores: Tensor  # (n,) objectness 0 to 1
    level: Tensor  # (n,)
    clipped: Tensor  # (n,) bool, like the next three
    small: Tensor
    suppressed: Tensor
    kept: Tensor  # the second stage gets it as a proposal


@dataclass(frozen=True)
class RoIs:
    """The RoIs of one image that the second stage was trained on."""

    boxes: Tensor  # (R, 4)
    refined: Tensor  # (R, 4) by the deltas of the true class
    targets: Tensor  # (R, 4) the ground truth of positives
    level: Tensor  # (R,) index of the feature map they were pooled from
    label: Tensor  # (R,) class, the background last
    positive: Tensor  # (R,) bool
    scores: Tensor  # (R, K + 1) probabilities
    pooled: Tensor  # (R, C, S, S)


@dataclass(frozen=True)
class Loss:
    """A loss of a step: its value is weight * total / normaliser, over ``count`` terms.

    These four are None if the module is not known or has other arguments than the losses of frdet.
    """

    name: str  # in the log
    value: float
    part: str = ''  # its module, such as rpn_head.loss_cls; empty if the model changed the result
    kind: str = ''  # class of that module
    normaliser: float | None = None
    weight: float | None = None
    count: int | None = None

    @property
    def total(self) -> float | None:
        return self.value * self.normaliser / self.weight if self.normaliser is not None and self.weight else None


@dataclass(frozen=True)
class Record:
    """One training step. Lists have an entry for each image; they are empty if the model has no such boxes."""

    prepared: Prepared
    samples: list[Any]
    input_shape: tuple[int, int]  # (height, width) of the padded batch; zeros if it holds no images
    seconds: dict[str, float]  # all calls of each part together
    shapes: dict[str, list[tuple[int, ...]]]  # outputs of the last call of each part
    level_names: list[str]
    objectness: list[Tensor]  # (B, H, W, A) for each level, 0 to 1; of the best class if there are several
    anchors: list[Matching]
    selections: list[Selection]
    matched: list[Matching]
    rois: list[RoIs]
    losses: list[Loss]
    logged: dict[str, float]
    layers: dict[str, LayerStats]
    stages: dict[str, StageStats]
    lr: float
    absent: dict[str, str]  # titles of the sections that are left out, and the reasons

    @property
    def not_shown(self) -> str:
        """The sections that the page lacks and the reasons, in a line; empty if it has all."""
        titles: dict[str, list[str]] = defaultdict(list)
        for title, reason in self.absent.items():
            titles[reason].append(title)
        return '; '.join(f'{", ".join(several)} ({reason})' for reason, several in titles.items())

    def image_name(self, image: int) -> str:
        return f'image {self.samples[image].get("img_id", image)}'

    def class_name(self, label: int) -> str:
        """Name of a label; 'background' after the last class of the model, its number if it has no name."""
        if label == getattr(self.prepared.model, 'num_classes', None):
            return 'background'
        return self.prepared.classes[label] if label < len(self.prepared.classes) else str(label)

    def describe(self, image: int, index: int) -> str:
        """A ground truth in words: ``gt 3 (dog, 12x9 pixels)``."""
        truth = self.samples[image].gt_instances
        x1, y1, x2, y2 = truth.bboxes[index].tolist()
        return f'gt {index} ({self.class_name(int(truth.labels[index]))}, {x2 - x1:.0f}x{y2 - y1:.0f} pixels)'
