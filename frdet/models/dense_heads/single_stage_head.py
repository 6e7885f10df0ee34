"""What heads of one-stage detectors share: towers of convolutions, targets, and choosing detections.

Shapes: B images, K classes, A anchors a cell, n = H * W * A anchors of a level in (H, W, A) order, N of all levels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.models.layers import Conv2d, ConvNorm
from frdet.models.task_modules import NMS, Detections, best_pairs, select_labelled
from frdet.models.task_modules.targets import IGNORED, POSITIVE
from frdet.registry import (
    ANCHOR_GENERATORS,
    ASSIGNERS,
    BOX_CODERS,
    LOSSES,
    NORMS,
    SUPPRESSIONS,
    build_parts,
)
from frdet.structures import GroundTruth, clip_boxes

NORMALIZERS = ('batch', 'batch_each', 'image', 'ema')
_EMA_MOMENTUM = 0.9


class Targets(NamedTuple):
    """What the anchors of a batch are trained on.

    Attributes:
        anchors: (N, 4).
        positive: (B, N) bool.
        counted: (B, N) bool, positive or negative.
        labels: (B, N) int64, -1 unless positive.
        boxes: (B, N, 4), the ground truth of a positive, any box otherwise.
    """

    anchors: Tensor
    positive: Tensor
    counted: Tensor
    labels: Tensor
    boxes: Tensor


class SingleStageHead(BaseModule):
    """Two towers of convolutions that all levels share, one for classes and one for boxes (RetinaNet, section 4).

    Args:
        num_classes: K. Where a config has None, it is the number of the data set's classes.
        in_channels: channels of the feature maps.
        feat_channels: channels of the towers.
        stacked_convs: 3x3 convolutions of each tower, each followed by a ReLU.
        anchor_generator, box_coder, assigner: the parts, configs or built.
        loss_cls: on the K logits of each anchor that is not ignored; each class has the target 0 or 1.
        loss_bbox: on the boxes of positive anchors.
        normalizer: divisor of the losses. 'batch' is the number of positive anchors in the batch, 'batch_each' the same
            with at least one for every image (MMDetection's RetinaNet). 'image' divides the losses of each image by its
            own number, and takes the mean over the images (torchvision's RetinaNet). 'ema' is a moving average of
            'batch' that keeps 0.9 of its value in each step (detectron2). A checkpoint holds it.
        ema_start: the average before the first step.
        score_thr: detections need a score above this.
        pre_nms: number of the best pairs of anchor and class of each level that enter NMS.
        nms_iou_thr: NMS threshold.
        max_per_image: largest number of detections of an image.
        clip_before_nms: boxes are clipped to their image before NMS (torchvision, MMDetection), not after it
            (detectron2).
        nms: the rule by which boxes suppress others. None: NMS within each class.
        norm: config of the norm after every convolution of the towers. None: no norm. GN fits: levels that share a BN
            have other statistics in training than in testing.
        conv_bias: convolutions with a norm have a bias, too.
        prior_prob: the class scores of every anchor at the start (RetinaNet, section 3.3).
        init_cfg: MMEngine's.

    Raises:
        ConfigError: ``num_classes`` is not a positive number, or ``normalizer`` does not exist.
    """

    parts = dict(
        anchor_generator=ANCHOR_GENERATORS, box_coder=BOX_CODERS, assigner=ASSIGNERS, loss_cls=LOSSES,
        loss_bbox=LOSSES, nms=SUPPRESSIONS, norm=NORMS,
    )  # fmt: skip
    #: The arguments that decide at each stage of a test which boxes stay. A trace of objects names them.
    stage_keys: Mapping[str, str] = {
        'no anchor': 'anchor_generator.sizes',
        'anchor top-k': 'pre_nms',
        'score threshold': 'score_thr',
        'class NMS': 'nms_iou_thr',
        'detections cut': 'max_per_image',
    }

    def __init__(
        self,
        *,
        num_classes: int | None,
        in_channels: int,
        feat_channels: int,
        stacked_convs: int,
        anchor_generator: dict,
        box_coder: dict,
        assigner: dict,
        loss_cls: dict,
        loss_bbox: dict,
        normalizer: str,
        ema_start: float = 100.0,
        score_thr: float,
        pre_nms: int,
        nms_iou_thr: float,
        max_per_image: int,
        clip_before_nms: bool,
        nms: dict | None = None,
        norm: dict | None = None,
        conv_bias: bool = False,
        prior_prob: float = 0.01,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if num_classes is None or num_classes < 1:
            raise ConfigError(
                f'{type(self).__name__}: num_classes is {num_classes}, expected a positive number. train_detector, '
                "test_detector and init_detector replace None by the number of the data set's classes"
            )
        if normalizer not in NORMALIZERS:
            found = f'{type(self).__name__}: normalizer is {normalizer!r}'
            raise ConfigError(f'{found}, expected one of {", ".join(NORMALIZERS)}')
        build_parts(
            self, anchor_generator=anchor_generator, box_coder=box_coder, assigner=assigner, loss_cls=loss_cls,
            loss_bbox=loss_bbox, nms=NMS() if nms is None else nms,
        )  # fmt: skip
        self.num_classes = num_classes
        self.normalizer = normalizer
        if normalizer == 'ema':
            self.register_buffer('loss_normalizer', torch.tensor(float(ema_start)))
        self.score_thr = score_thr  # a user may set these four on a loaded detector
        self.pre_nms = pre_nms
        self.nms_iou_thr = nms_iou_thr
        self.max_per_image = max_per_image
        self.clip_before_nms = clip_before_nms
        self.prior_logit = math.log(prior_prob / (1 - prior_prob))
        channels = [in_channels] + [feat_channels] * stacked_convs
        self.last_channels = channels[-1]
        self.cls_convs, self.reg_convs = (
            nn.ModuleList(ConvNorm(a, b, 3, norm=norm, bias=conv_bias) for a, b in pairwise(channels)) for _ in range(2)
        )
        for layer in (*self.cls_convs, *self.reg_convs):
            nn.init.normal_(layer.conv.weight, std=0.01)
            if layer.conv.bias is not None:
                nn.init.zeros_(layer.conv.bias)

    def last_conv(self, out_channels: int, bias: float = 0.0) -> nn.Conv2d:
        """A 3x3 convolution from the end of a tower to predictions."""
        conv = Conv2d(self.last_channels, out_channels, 3, padding=1)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.constant_(conv.get_parameter('bias'), bias)
        return conv

    def towers(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """A map (B, C, H, W) -> the ends of the tower for classes and of that for boxes."""
        ends = []
        for convs in (self.cls_convs, self.reg_convs):
            x = feature
            for conv in convs:
                x = F.relu_(conv(x))
            ends.append(x)
        return ends[0], ends[1]

    def anchors(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Anchors (n, 4) of each level."""
        return self.anchor_generator.grid([(f.shape[2], f.shape[3]) for f in features], features[0].device)

    @torch.no_grad()
    def targets(self, features: Sequence[Tensor], truth: GroundTruth) -> Targets:
        """Assign all anchors of a batch to its ground truth."""
        anchors = torch.cat(self.anchors(features))
        label, gt_index, _ = self.assigner.assign_batch(anchors, truth)
        positive = label == POSITIVE
        labels = truth.labels.gather(1, gt_index).masked_fill(~positive, -1)
        boxes = truth.boxes.gather(1, gt_index[..., None].expand(-1, -1, 4))
        return Targets(anchors, positive, label != IGNORED, labels, boxes)

    def avg_factor(self, positive: Tensor) -> Tensor:
        """The divisor of the losses, () or (B, 1), for positive anchors (B, N)."""
        count = positive.sum(dim=1)
        if self.normalizer == 'image':
            return len(count) * count.clamp(min=1)[:, None]
        if self.normalizer == 'batch_each':
            return count.clamp(min=1).sum()
        total = count.sum().clamp(min=1)
        if self.normalizer == 'batch':
            return total
        average: Tensor = self.loss_normalizer
        if self.training:
            average.lerp_(total.to(average), 1 - _EMA_MOMENTUM)
        return average

    def class_loss(self, logits: Sequence[Tensor], labels: Tensor, weight: Tensor) -> Tensor:
        """Sum of the losses of logits (B, n, K) of each level, with labels and weights (B, N); see ``Loss``."""
        counts = [level.shape[1] for level in logits]
        levels = zip(logits, labels.split(counts, dim=1), weight.split(counts, dim=1), strict=True)
        return torch.stack([self.loss_cls.of_classes(*level) for level in levels]).sum()

    def choose(
        self,
        features: Sequence[Tensor],
        scores: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Tensor,
        *,
        probability: Callable[[Tensor], Tensor],
        at_least: float,
    ) -> Detections:
        """The detections: the best pairs of anchor and class of each level, decoded, after NMS.

        Args:
            features: maps (B, C, H, W), finest first.
            scores: (B, n, K) of each level.
            deltas: (B, n, 4) of each level.
            image_sizes: (B, 2), height and width before padding.
            probability: scores -> probabilities, a function that rises.
            at_least: the probability of lower scores is not above ``score_thr``.
        """
        best, index, labels = zip(*(best_pairs(level, self.pre_nms, at_least) for level in scores), strict=True)
        levels = zip(self.anchors(features), deltas, index, strict=True)
        decoded = [self.box_coder.decode(a[at], d.gather(1, at[..., None].expand(-1, -1, 4))) for a, d, at in levels]
        boxes, sizes = torch.cat(decoded, dim=1), image_sizes[:, None]

        def class_scores() -> Tensor:
            every = [x.gather(1, at[..., None].expand(-1, -1, x.shape[2])) for x, at in zip(scores, index, strict=True)]
            return probability(torch.cat(every, dim=1).float())

        raw = torch.cat(best, dim=1).float()
        found = select_labelled(
            clip_boxes(boxes, sizes) if self.clip_before_nms else boxes,
            probability(raw).masked_fill(raw == -torch.inf, -torch.inf),
            torch.cat(labels, dim=1),
            class_scores=class_scores, score_thr=self.score_thr, nms_iou_thr=self.nms_iou_thr, num=self.max_per_image,
            nms=self.nms,
        )  # fmt: skip
        if self.clip_before_nms:
            return found
        boxes = clip_boxes(found.boxes, sizes)
        outside = (boxes[..., 2:] <= boxes[..., :2]).any(dim=-1)
        scores_inside, labels_inside = found.scores.masked_fill(outside, 0), found.labels.masked_fill(outside, -1)
        return Detections(boxes.masked_fill(outside[..., None], 0), scores_inside, labels_inside)


def per_anchor(x: Tensor, size: int) -> Tensor:
    """(B, A * size, H, W) -> (B, H * W * A, size); a view in channels_last memory."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size)
