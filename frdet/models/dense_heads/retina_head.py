"""RetinaNet's head (Lin et al. 2017). Shapes are those of ``single_stage_head.py``."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from frdet.models.dense_heads.single_stage_head import SingleStageHead, per_anchor
from frdet.models.losses import box_loss
from frdet.models.task_modules import Detections
from frdet.registry import DENSE_HEADS
from frdet.structures import GroundTruth


@DENSE_HEADS.register_module()
class RetinaHead(SingleStageHead):
    """K class logits and four deltas for every anchor.

    Args:
        kwargs: arguments of ``SingleStageHead``.
    """

    class_layers: tuple[str, ...] = ('retina_cls',)

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        num_anchors = self.anchor_generator.num_anchors
        self.retina_cls = self.last_conv(num_anchors * self.num_classes, self.prior_logit)
        self.retina_reg = self.last_conv(num_anchors * 4)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Feature maps (B, C, H, W) -> by level, logits (B, n, K) and deltas (B, n, 4)."""
        logits, deltas = [], []
        for feature in features:
            of_class, of_box = self.towers(feature)
            logits.append(per_anchor(self.retina_cls(of_class), self.num_classes))
            deltas.append(per_anchor(self.retina_reg(of_box), 4).float())
        return logits, deltas

    def loss(self, features: Sequence[Tensor], truth: GroundTruth, image_sizes: Tensor) -> dict[str, Tensor]:
        """Losses of all anchors. ``image_sizes`` (B, 2) is not used."""
        targets = self.targets(features, truth)
        logits, deltas = self(features)
        weight = targets.counted / self.avg_factor(targets.positive)
        return {
            'loss_cls': self.class_loss(logits, targets.labels, weight),
            'loss_bbox': box_loss(
                self.loss_bbox, self.box_coder, torch.cat(deltas, dim=1), targets.anchors, targets.boxes,
                targets.positive, 1.0, weight,
            ),
            'num_pos': targets.positive.sum() / len(weight),
        }  # fmt: skip

    def predict(self, features: Sequence[Tensor], image_sizes: Tensor) -> Detections:
        """Detections in pixels of the network's input; ``image_sizes`` (B, 2) as (height, width)."""
        logits, deltas = self(features)
        # Logits are compared a little below the threshold, so that rounding leaves out no pair.
        least = math.log(self.score_thr / (1 - self.score_thr)) - 0.05 if 0 < self.score_thr < 1 else -math.inf
        return self.choose(features, logits, deltas, image_sizes, probability=torch.sigmoid, at_least=least)
