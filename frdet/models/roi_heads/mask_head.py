"""Masks of the objects in boxes (Mask R-CNN, He et al. 2017).

Shapes: B images, S samples and D detections an image, R RoIs, K classes, C channels, T objects of the batch; masks are
predicted on a grid of M x M cells over each box, where M is twice the size of the pooled features.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frdet import ops
from frdet.errors import ConfigError, DataError
from frdet.models.layers import ConvNorm
from frdet.models.roi_heads.stage import with_image_index
from frdet.models.task_modules import Detections
from frdet.registry import LOSSES, MASK_HEADS, NORMS, ROI_EXTRACTORS, build_parts
from frdet.structures import GroundTruth, paste_masks

#: Pixels of masks in float32 at a time.
CHUNK = 2**24


@MASK_HEADS.register_module()
class FCNMaskHead(BaseModule):
    """Convolutions, an upsampling by two, and one mask for each class (Mask R-CNN, section 3 and figure 4, right).

    Args:
        roi_extractor: feature maps and RoIs -> pooled features.
        num_classes: K, without the background; see ``FCBBoxHead``.
        in_channels: channels of the pooled features.
        loss_mask: on the logits of the cells, in the mask of the own class.
        num_convs: number of 3x3 convolutions before the upsampling.
        conv_channels: channels of each of them, and of the upsampling.
        class_agnostic: predict one mask for all classes instead of one for each.
        norm: config of the norm after every convolution. None: no norm, and the convolutions have a bias. In training
            on a GPU, BN also counts the samples that are not positive.
        soft_targets: a cell is trained to be the share of the object in it, as in torchvision. Otherwise it is trained
            to be 1 where that share is at least a half, and 0 elsewhere, as in detectron2 and MMDetection.
        aligned_targets: RoIAlign, which cuts the targets out of the ground truth, has half-pixel centres (detectron2,
            MMDetection) or not (torchvision).
        mask_thr_binary: a pixel belongs to the object if its probability is at least this; in torchvision, above this.
        paste: the rule by which a mask becomes pixels of the image; see ``frdet.structures.paste_masks``.
        init_cfg: MMEngine's.

    Raises:
        ConfigError: ``num_classes`` is not a positive number, or ``paste`` is no rule.
    """

    parts = dict(roi_extractor=ROI_EXTRACTORS, loss_mask=LOSSES, norm=NORMS)
    #: See ``FCBBoxHead``.
    class_layers: tuple[str, ...] = ('conv_logits',)
    upsample: Any  # torch's annotations allow a layer without a bias
    conv_logits: Any

    def __init__(
        self,
        *,
        roi_extractor: dict,
        num_classes: int | None,
        in_channels: int,
        loss_mask: dict,
        num_convs: int = 4,
        conv_channels: int = 256,
        class_agnostic: bool = False,
        norm: dict | None = None,
        soft_targets: bool = False,
        aligned_targets: bool = True,
        mask_thr_binary: float = 0.5,
        paste: Literal['detectron2', 'torchvision'] = 'detectron2',
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if num_classes is None or num_classes < 1:
            raise ConfigError(
                f'FCNMaskHead: num_classes is {num_classes}, expected a positive number. train_detector, test_detector '
                "and init_detector replace None by the number of the data set's classes"
            )
        if paste not in ('detectron2', 'torchvision'):
            raise ConfigError(f"FCNMaskHead: paste is {paste!r}, expected 'detectron2' or 'torchvision'")
        build_parts(self, roi_extractor=roi_extractor, loss_mask=loss_mask)
        self.num_classes = num_classes
        self.class_agnostic = class_agnostic
        self.soft_targets = soft_targets
        self.aligned_targets = aligned_targets
        self.mask_thr_binary = mask_thr_binary  # a user may set it on a loaded detector
        self.rule = paste
        channels = [in_channels] + [conv_channels] * num_convs
        convs = [ConvNorm(a, b, 3, norm=norm) for a, b in pairwise(channels)]
        self.convs = nn.ModuleList(convs)
        self.upsample = nn.ConvTranspose2d(channels[-1], conv_channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(conv_channels, 1 if class_agnostic else num_classes, 1)
        for layer in [*(conv.conv for conv in convs), self.upsample]:
            nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')
        nn.init.normal_(self.conv_logits.weight, std=0.001)  # detectron2's
        nn.init.zeros_(self.upsample.bias)
        nn.init.zeros_(self.conv_logits.bias)

    def forward(self, features: Sequence[Tensor], rois: Tensor, labels: Tensor) -> Tensor:
        """Logits (R, M, M) in the masks of the classes ``labels`` (R,) of RoIs (R, 5); any label where padded.

        The masks of the other classes are not computed: each would need as much memory. Without overlap between its
        steps, the upsampling is a product of matrices, and so are the logits.
        """
        x = self.roi_extractor(features, rois)
        for conv in self.convs:
            x = F.relu_(conv(x))
        own = torch.zeros_like(labels) if self.class_agnostic else labels.clamp(0, self.num_classes - 1)
        height, width = x.shape[2:]
        cells = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        weight = self.upsample.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * C, C)
        cells = F.relu_(F.linear(cells, weight, self.upsample.bias.repeat(4)))
        cells = cells.view(-1, height * width * 4, self.conv_logits.in_channels)
        logits = cells @ self.conv_logits.weight.flatten(1)[own][..., None] + self.conv_logits.bias[own].view(-1, 1, 1)
        logits = logits.float().view(-1, height, width, 2, 2)
        return logits.transpose(2, 3).reshape(-1, 2 * height, 2 * width)

    def loss(
        self,
        features: Sequence[Tensor],
        boxes: Tensor,
        labels: Tensor,
        gt_index: Tensor,
        positive: Tensor,
        truth: GroundTruth,
    ) -> dict[str, Tensor]:
        """The mean loss of the cells of positive samples: ``loss_mask``, 0 without any.

        Args:
            features: maps (B, C, H_l, W_l).
            boxes: (B, S, 4) xyxy in pixels of the network's input.
            labels: (B, S) classes of the positive samples.
            gt_index: (B, S) the ground truth of each positive sample; any legal index elsewhere.
            positive: (B, S) bool. Nothing is trained on the others.
            truth: ground truth with masks.

        Raises:
            DataError: the ground truth has no masks.
        """
        if truth.masks is None:
            raise DataError(
                'A mask head is trained, and the ground truth has no masks: expected gt_instances.masks in each '
                'sample. Set train_dataloader.dataset.with_masks=True, as configs/_base_/datasets/coco_instance.py does'
            )
        samples = with_image_index(boxes), labels.flatten(), truth.mask_index(gt_index).flatten(), positive.flatten()
        computed = _computed(samples[-1])
        rois, labels, index, weight = (x[computed] for x in samples)
        logits = self(features, rois, labels)
        size = logits.shape[-1]
        target = self._targets(truth.masks, index, rois[:, 1:], size)
        count = weight.sum().clamp(min=1) * size**2
        return {'loss_mask': self.loss_mask(logits, target, weight[:, None, None], count)}

    @torch.no_grad()
    def _targets(self, masks: Tensor, index: Tensor, boxes: Tensor, size: int) -> Tensor:
        """Masks (T, H, W) uint8, and for R boxes (R, 4) the ``index`` (R,) of its mask -> (R, size, size) of 0 to 1."""
        pooled = boxes.new_zeros(len(boxes), size, size)
        step = max(1, CHUNK // masks[0].numel())
        for first in range(0, len(masks), step):  # RoIAlign reads float32, and all masks would need much memory
            part = masks[first : first + step, None].float()
            others = ((index < first) | (index >= first + len(part)))[:, None]
            number = (index - first)[:, None].masked_fill(others, 0).to(boxes)
            rois = torch.cat([number, boxes.masked_fill(others, torch.nan)], dim=1)  # NaN gives zeros, at no cost
            pooled += ops.roi_align(part, rois, size, 1.0, 0, self.aligned_targets).squeeze(1)
        return pooled if self.soft_targets else (pooled >= 0.5).float()

    def predict(self, features: Sequence[Tensor], found: Detections) -> Detections:
        """The detections (B, D) with masks (B, D, M, M): probabilities, zeros where padded."""
        rois, valid = with_image_index(found.boxes), found.labels >= 0
        if torch.compiler.is_exporting() or valid.is_meta:  # neither a graph nor the meta device knows values
            masks = self(features, rois, found.labels.flatten()).sigmoid().unflatten(0, valid.shape)
            return found._replace(masks=masks * valid[..., None, None])
        masks = self(features, rois[valid.flatten()], found.labels[valid]).sigmoid()
        return found._replace(masks=masks.new_zeros(*valid.shape, *masks.shape[1:]).index_put_((valid,), masks))

    def paste(self, masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks (n, M, M) over boxes (n, 4) -> (n, height, width) bool; see ``frdet.structures.paste_masks``."""
        return paste_masks(masks, boxes, size, threshold=self.mask_thr_binary, rule=self.rule)


def _computed(positive: Tensor) -> Tensor | slice:
    """Which samples (R,) are computed. On a CPU those that are positive, or one: a parameter always has a gradient.

    On a GPU all are, because the host would have to wait for the number of positives.
    """
    if not positive.is_cpu:
        return slice(None)
    return positive.nonzero().squeeze(1) if positive.any() else slice(0, 1)
