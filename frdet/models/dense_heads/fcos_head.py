"""FCOS's head (Tian et al. 2019). Shapes are those of ``single_stage_head.py``, with one anchor a cell."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.models.dense_heads.single_stage_head import SingleStageHead, per_anchor
from frdet.models.losses import box_loss
from frdet.models.task_modules import Detections
from frdet.registry import DENSE_HEADS, LOSSES, build_parts
from frdet.structures import GroundTruth


class Scale(nn.Module):
    """A learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same."""
        return x * self.scale


@DENSE_HEADS.register_module()
class FCOSHead(SingleStageHead):
    """K class logits, the distances to the four sides of an object, and a centerness for every cell.

    The anchor of a cell is no guess of a box. It says where the cell is, and its size, the stride, is the unit of the
    distances. The score of a detection is the root of class probability times centerness.

    Args:
        loss_centerness: on the centerness of positive cells.
        centerness_on_reg: predict centerness from the tower of the boxes, not from that of the classes.
        learn_scales: multiply the distances of every level by a learned number (FCOS, section 3.2).
        weigh_by_centerness: the loss of a box is multiplied by the centerness that its cell should have, and the sum of
            these divides the loss (MMDetection). False: all boxes count the same (torchvision).
        kwargs: arguments of ``SingleStageHead``.

    Raises:
        ConfigError: a cell has several anchors.
    """

    parts = dict(loss_centerness=LOSSES)
    class_layers: tuple[str, ...] = ('conv_cls',)
    stage_keys: Mapping[str, str] = {**SingleStageHead.stage_keys, 'no anchor': 'assigner.center_radius'}

    def __init__(
        self,
        *,
        loss_centerness: dict,
        centerness_on_reg: bool = True,
        learn_scales: bool = False,
        weigh_by_centerness: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if (found := self.anchor_generator.num_anchors) != 1:
            raise ConfigError(f'FCOSHead: anchor_generator gives {found} anchors a cell, expected one size and ratio')
        build_parts(self, loss_centerness=loss_centerness)
        self.centerness_on_reg = centerness_on_reg
        self.weigh_by_centerness = weigh_by_centerness
        self.conv_cls = self.last_conv(self.num_classes, self.prior_logit)
        self.conv_reg = self.last_conv(4)
        self.conv_centerness = self.last_conv(1)
        self.scales = nn.ModuleList(Scale() if learn_scales else nn.Identity() for _ in self.anchor_generator.strides)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Feature maps (B, C, H, W) -> by level, class logits (B, n, K), distances (B, n, 4), centerness (B, n).

        Distances are at least 0, in sizes of the anchor. Centerness is a logit.
        """
        logits, distances, centerness = [], [], []
        for feature, scale in zip(features, self.scales, strict=True):
            of_class, of_box = self.towers(feature)
            logits.append(per_anchor(self.conv_cls(of_class), self.num_classes))
            distances.append(per_anchor(F.relu(scale(self.conv_reg(of_box))), 4).float())
            centre = self.conv_centerness(of_box if self.centerness_on_reg else of_class)
            centerness.append(per_anchor(centre, 1).squeeze(2).float())
        return logits, distances, centerness

    def loss(self, features: Sequence[Tensor], truth: GroundTruth, image_sizes: Tensor) -> dict[str, Tensor]:
        """Losses of all cells. ``image_sizes`` (B, 2) is not used."""
        targets = self.targets(features, truth)
        logits, distances, centerness = self(features)
        positive = targets.positive
        weight = targets.counted / self.avg_factor(positive)
        centre = centerness_of(self.box_coder.encode(targets.anchors, targets.boxes), positive)
        by_centre = (centre.sum().clamp(min=1e-6), centre) if self.weigh_by_centerness else (1.0, weight)
        return {
            'loss_cls': self.class_loss(logits, targets.labels, weight),
            'loss_bbox': box_loss(
                self.loss_bbox, self.box_coder, torch.cat(distances, dim=1), targets.anchors, targets.boxes, positive,
                *by_centre,
            ),
            'loss_centerness': self.loss_centerness(torch.cat(centerness, dim=1), centre, positive * weight, 1.0),
            'num_pos': positive.sum() / len(positive),
        }  # fmt: skip

    def predict(self, features: Sequence[Tensor], image_sizes: Tensor) -> Detections:
        """Detections in pixels of the network's input; ``image_sizes`` (B, 2) as (height, width)."""
        logits, distances, centerness = self(features)
        scores = [
            (x.float().sigmoid() * centre[..., None].sigmoid()).sqrt()
            for x, centre in zip(logits, centerness, strict=True)
        ]
        return self.choose(
            features, scores, distances, image_sizes, probability=lambda score: score, at_least=self.score_thr
        )


def centerness_of(distances: Tensor, positive: Tensor) -> Tensor:
    """FCOS, equation 3: 1 at the middle of a box and 0 at its sides; 0 unless ``positive`` (...).

    ``distances`` (..., 4) of a cell are those to left, top, right and bottom.
    """
    left, top, right, bottom = torch.where(positive[..., None], distances, 1.0).unbind(-1)
    wide, high = (torch.minimum(a, b) / torch.maximum(a, b) for a, b in ((left, right), (top, bottom)))
    return (wide * high).sqrt() * positive
