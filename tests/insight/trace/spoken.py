"""Parts of a detector that say what is written down for an image; see ``losing.py``.

Every image has one grey value, its number, by which the parts know what to say.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import nn

from frdet.models.dense_heads import RPNHead
from frdet.registry import BACKBONES, BBOX_HEADS, DENSE_HEADS, ROI_EXTRACTORS

STRIDES = (16, 32)
DULL = -4.0  #: the logit of the first anchor of which nothing is said; see ``dull``
FAINT = 0.004  #: the score of a class that nothing is said of; the background has the rest


def dull(level: int, index: int) -> float:
    """The logit of an anchor of which nothing is said: a little below those before it, so that no two are equal."""
    return DULL - index / 1000 - level / 2000


@BACKBONES.register_module(force=True)
class GreyBackbone(BaseModule):
    """Maps that hold the grey values of the images, at the strides of the anchors."""

    out_channels = (1, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        height, width = images.shape[2:]
        return tuple(images[:, :1, :1, :1].expand(-1, -1, height // s, width // s) for s in STRIDES)


def numbers(feature: torch.Tensor) -> list[int]:
    """The number of every image of a batch."""
    return [round(value) for value in feature[:, 0, 0, 0].tolist()]


@DENSE_HEADS.register_module(force=True)
class SpokenRPNHead(RPNHead):
    """``said``: image, level, column, row, logit and the box to decode, in a row each."""

    def __init__(self, *, said: list[list[float]], **kwargs: Any):
        super().__init__(**kwargs)
        self.said = said

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        anchors = self._anchors(features)
        logits = [
            torch.tensor([dull(level, index) for index in range(len(a))]).repeat(len(features[0]), 1)
            for level, a in enumerate(anchors)
        ]
        deltas = [torch.zeros(len(features[0]), len(a), 4) for a in anchors]
        for place, number in enumerate(numbers(features[0])):
            for image, level, column, row, logit, *box in self.said:
                if image == number:
                    index = int(row) * features[int(level)].shape[3] + int(column)
                    logits[int(level)][place, index] = logit
                    target = self.box_coder.encode(anchors[int(level)][index], torch.tensor(box))
                    deltas[int(level)][place, index] = target
        return logits, deltas


@ROI_EXTRACTORS.register_module(force=True)
class RoIsThemselves(nn.Module):
    """Pools of every RoI the number of its image and its box."""

    def forward(self, features: Sequence[torch.Tensor], rois: torch.Tensor) -> torch.Tensor:
        known = torch.tensor(numbers(features[0]), dtype=torch.float32)
        return torch.cat([known[rois[:, 0].long(), None], rois[:, 1:]], dim=1)


@BBOX_HEADS.register_module(force=True)
class SpokenBoxHead(BaseModule):
    """``said``: image, the RoI's box, the scores of K classes and the refined boxes of K classes, in a row each."""

    class_layers = ()

    def __init__(self, *, num_classes: int | None, said: list[list[float]], class_agnostic: bool = False):
        super().__init__()
        assert num_classes == 2
        self.num_classes, self.said, self.class_agnostic = num_classes, said, class_agnostic

    def forward(self, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.full((len(pooled), self.num_classes), FAINT)
        targets = pooled[:, None, 1:].repeat(1, self.num_classes, 1)
        for row in torch.tensor(self.said).reshape(-1, 5 + 5 * self.num_classes):
            here = ((pooled - row[:5]).abs() < 0.01).all(dim=1)
            scores[here] = row[5 : 5 + self.num_classes]
            targets[here] = row[5 + self.num_classes :].view(self.num_classes, 4)
        background = 1 - scores.sum(dim=1, keepdim=True)
        targets = targets[:, :1] if self.class_agnostic else targets
        return torch.cat([scores, background], dim=1).log(), _encode(pooled[:, None, 1:], targets)


def _encode(boxes: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Deltas of weights 1 on continuous boxes, written down once more: the coder of the head must undo them."""
    size, new = boxes[..., 2:] - boxes[..., :2], targets[..., 2:] - targets[..., :2]
    shift = (targets[..., :2] + new / 2 - boxes[..., :2] - size / 2) / size
    return torch.cat([shift, (new / size).log()], dim=-1)
