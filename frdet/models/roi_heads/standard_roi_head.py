"""The second stage: Fast R-CNN on the proposals.

Shapes: B images, P proposals and G ground truths an image, R RoIs, K classes. Sampling and losses are in stage.py.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frdet import ops
from frdet.errors import ConfigError
from frdet.models.layers import ConvNorm
from frdet.models.roi_heads.stage import (
    add_truth,
    decode_clipped,
    for_valid,
    mask_loss,
    roi_losses,
    roi_outputs,
    sample_rois,
    with_image_index,
)
from frdet.models.task_modules import Detections, Proposals, select_batch
from frdet.registry import (
    ASSIGNERS,
    BBOX_HEADS,
    BOX_CODERS,
    LOSSES,
    MASK_HEADS,
    NORMS,
    ROI_EXTRACTORS,
    ROI_HEADS,
    SAMPLERS,
    SUPPRESSIONS,
    build_parts,
)
from frdet.structures import GroundTruth


@ROI_HEADS.register_module()
class StandardRoIHead(BaseModule):
    """Pool every RoI, classify it, refine its box (Fast R-CNN, section 2).

    Args:
        roi_extractor, bbox_head, box_coder, assigner, sampler: the parts, configs or built.
        loss_cls: on class scores; called with scores (R, K + 1) and labels (R,).
        loss_bbox: on the boxes of positive RoIs.
        mask_head: masks of the detections; None: boxes only.
        add_gt_as_proposals: in training the ground truth is added to the proposals, so that there are positives early.
        score_thr: detections need a score above this.
        nms_iou_thr: the IoU from which on boxes suppress each other.
        nms: the rule by which they do: ``NMS``, within a class or of all classes, or ``SoftNMS``. None: NMS within a
            class.
        max_per_image: largest number of detections of an image.
        min_side: detections are dropped if a side is below this, in pixels.
        init_cfg: MMEngine's.
    """

    parts = dict(
        roi_extractor=ROI_EXTRACTORS, bbox_head=BBOX_HEADS, box_coder=BOX_CODERS, assigner=ASSIGNERS,
        sampler=SAMPLERS, loss_cls=LOSSES, loss_bbox=LOSSES, mask_head=MASK_HEADS, nms=SUPPRESSIONS,
    )  # fmt: skip
    #: The arguments that decide at each stage of a test which boxes stay. A trace of objects names them.
    stage_keys: Mapping[str, str] = {
        'score threshold': 'score_thr',
        'class NMS': 'nms_iou_thr',
        'detections cut': 'max_per_image',
    }

    def __init__(
        self,
        *,
        roi_extractor: dict,
        bbox_head: dict,
        box_coder: dict,
        assigner: dict,
        sampler: dict,
        loss_cls: dict,
        loss_bbox: dict,
        add_gt_as_proposals: bool,
        score_thr: float,
        nms_iou_thr: float,
        max_per_image: int,
        min_side: float = 0.0,
        mask_head: dict | None = None,
        nms: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        build_parts(
            self, roi_extractor=roi_extractor, bbox_head=bbox_head, box_coder=box_coder, assigner=assigner,
            sampler=sampler, loss_cls=loss_cls, loss_bbox=loss_bbox, mask_head=mask_head, nms=nms or dict(type='NMS'),
        )  # fmt: skip
        self.add_gt_as_proposals = add_gt_as_proposals
        self.score_thr = score_thr  # a user may set these four on a loaded detector
        self.nms_iou_thr = nms_iou_thr
        self.max_per_image = max_per_image
        self.min_side = min_side

    def forward(self, features: Sequence[Tensor], rois: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, H_l, W_l) and RoIs (R, 5) -> class scores (R, K + 1) and deltas (R, K, 4)."""
        return roi_outputs(self, features, rois)

    def loss(self, features: Sequence[Tensor], proposals: Proposals, truth: GroundTruth) -> dict[str, Tensor]:
        """Losses of a sample of the proposals (B, P) of a batch with ground truth (B, G)."""
        boxes, legal = proposals.boxes, proposals.valid
        if self.add_gt_as_proposals:
            boxes, legal = add_truth(boxes, legal, truth)
        sample = sample_rois(self, features, boxes, legal, truth)
        scores, deltas = self(features, with_image_index(sample.boxes))
        losses = roi_losses(self, scores, deltas, sample)
        if self.mask_head is not None:
            losses |= mask_loss(self.mask_head, features, sample, truth, self.sampler)
        return losses

    def predict(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> Detections:
        """Detections in pixels of the network's input; ``image_sizes`` (B, 2) as (height, width)."""
        boxes, probabilities = for_valid(proposals, lambda rois: self._refine(features, rois, image_sizes))
        found = select_batch(
            boxes, probabilities, proposals.valid,
            score_thr=self.score_thr, nms_iou_thr=self.nms_iou_thr, num=self.max_per_image, min_side=self.min_side,
            nms=self.nms,
        )  # fmt: skip
        return found if self.mask_head is None else self.mask_head.predict(features, found)

    def _refine(self, features: Sequence[Tensor], rois: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor]:
        """RoIs (R, 5) -> clipped boxes (R, K, 4), or (R, 1, 4), NaN where infinite, and probabilities (R, K)."""
        scores, deltas = self(features, rois)
        boxes = decode_clipped(self.box_coder, rois[:, None, 1:], deltas, image_sizes[rois[:, 0].long()][:, None])
        return boxes, scores.softmax(dim=1)[:, :-1]


@ROI_EXTRACTORS.register_module()
class MultiScaleRoIAlign(nn.Module):
    """RoIAlign on the FPN level floor(canonical_level + log2(sqrt(area) / canonical_size)) (FPN, equation 1).

    Args:
        strides: strides of the levels to pool from, finest first. Feature maps after these (p6) are not used.
        output_size: number of bins in height and in width.
        sampling_ratio: number of samples of a bin along each axis; 0 adapts it to the RoI's size.
        aligned: half-pixel centres (detectron2, MMDetection) or not (torchvision).
        canonical_size, canonical_level: an RoI with sides of 224 pixels goes to level 4.
        min_level: number of the level with the first stride.
        eps_inside, eps_outside: added to the ratio and to its logarithm. Here detectron2 and torchvision differ.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int],
        output_size: int = 7,
        sampling_ratio: int = 0,
        aligned: bool = True,
        canonical_size: float = 224.0,
        canonical_level: float = 4.0,
        min_level: int = 2,
        eps_inside: float = 1e-8,
        eps_outside: float = 0.0,
    ):
        super().__init__()
        self.spatial_scales = [1 / stride for stride in strides]
        self.output_size = output_size
        self.rule: dict[str, Any] = dict(
            sampling_ratio=sampling_ratio, aligned=aligned, canonical_size=canonical_size,
            canonical_level=canonical_level, min_level=min_level, eps_inside=eps_inside, eps_outside=eps_outside,
        )  # fmt: skip

    def forward(self, features: Sequence[Tensor], rois: Tensor, *, roi_scale_factor: float = 1.0) -> Tensor:
        """Maps (B, C, H_l, W_l) and RoIs (R, 5) as (image index, xyxy) -> (R, C, output_size, output_size).

        With a ``roi_scale_factor`` the RoIs are pooled that much larger around their centres, from the same levels.
        """
        rois = rois.to(torch.promote_types(rois.dtype, features[0].dtype))  # float64 for a float64 model
        rule = self.rule
        if roi_scale_factor != 1.0:
            image, low, high = rois.split((1, 2, 2), dim=1)
            grow = (high - low) * (0.5 * (roi_scale_factor - 1.0))
            rois = torch.cat([image, low - grow, high + grow], dim=1)
            rule = {**rule, 'canonical_size': rule['canonical_size'] * roi_scale_factor}
        used = list(features[: len(self.spatial_scales)])
        return ops.multiscale_roi_align(used, rois, self.output_size, self.spatial_scales, **rule)


@BBOX_HEADS.register_module()
class FCBBoxHead(BaseModule):
    """Shared layers, then one fully connected layer for class scores, with the background last, and one for deltas.

    The shared layers are 3x3 convolutions, if any, then fully connected layers, each followed by a ReLU.

    Args:
        num_classes: K, without the background. Where a config has None, training, testing and ``init_detector`` fill
            in the number of the data set's classes.
        in_channels: channels of the pooled features.
        roi_size: height and width of the pooled features.
        fc_channels: channels of each fully connected shared layer.
        num_fcs: number of these layers.
        class_agnostic: predict one box for all classes instead of one for each.
        num_convs: number of shared convolutions.
        conv_channels: channels of each convolution.
        norm: config of the norm after every convolution. None: no norm, and the convolutions have a bias. In training,
            BN also counts the places of samples that an image with few proposals leaves empty.
        init_cfg: MMEngine's.

    Raises:
        ConfigError: ``num_classes`` is not a positive number.
    """

    parts = dict(norm=NORMS)
    #: The layers whose weights depend on the classes. Fine-tuning on other classes initialises them again.
    class_layers: tuple[str, ...] = ('fc_cls', 'fc_reg')

    def __init__(
        self,
        *,
        num_classes: int | None,
        in_channels: int,
        roi_size: int,
        fc_channels: int,
        num_fcs: int,
        class_agnostic: bool = False,
        num_convs: int = 0,
        conv_channels: int = 256,
        norm: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if num_classes is None or num_classes < 1:
            raise ConfigError(
                f'FCBBoxHead: num_classes is {num_classes}, expected a positive number. train_detector, test_detector '
                "and init_detector replace None by the number of the data set's classes"
            )
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        channels = [in_channels] + [conv_channels] * num_convs
        convs = [ConvNorm(a, b, 3, norm=norm) for a, b in pairwise(channels)]
        self.shared_convs = nn.ModuleList(convs)
        for layer in convs:
            nn.init.kaiming_normal_(layer.conv.weight, mode='fan_out', nonlinearity='relu')
        sizes = [channels[-1] * roi_size**2] + [fc_channels] * num_fcs
        shared = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.shared_fcs = nn.ModuleList(shared)
        self.fc_cls = nn.Linear(sizes[-1], num_classes + 1)
        self.fc_reg = nn.Linear(sizes[-1], 4 * (1 if class_agnostic else num_classes))
        for fc in shared:
            nn.init.kaiming_uniform_(fc.weight, a=1)  # Caffe2's XavierFill
            nn.init.zeros_(fc.bias)
        for fc, std in ((self.fc_cls, 0.01), (self.fc_reg, 0.001)):
            nn.init.normal_(fc.weight, std=std)
            nn.init.zeros_(fc.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (R, C, S, S) -> class scores (R, K + 1) and deltas (R, K, 4), or (R, 1, 4) if agnostic."""
        for conv in self.shared_convs:
            pooled = F.relu_(conv(pooled))
        x = pooled.flatten(1)
        for fc in self.shared_fcs:
            x = F.relu_(fc(x))
        return self.fc_cls(x).float(), self.fc_reg(x).float().unflatten(1, (-1, 4))
