"""Families of detectors that torchvision and frdet have, with equal rules: torchvision's model, and frdet's config."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import nn
from torchvision.models import resnet50
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

BBOX_CLASSES, MASK_CLASSES = 'model.roi_head.bbox_head.num_classes', 'model.roi_head.mask_head.num_classes'


class Family(NamedTuple):
    """A detector of both projects.

    Attributes:
        build: torchvision's, for a number of classes that counts the background, with frozen norms in every layer that
            has a BatchNorm.
        config: frdet's, in configs/interop.
        last: the names of torchvision's last layers, and the standard deviation and mean that their outputs get.
        losses: the names of torchvision's losses, and frdet's.
        class_keys: the keys of frdet's config that take the number of classes.
    """

    build: Callable[[int], Any]
    config: str
    last: Mapping[str, tuple[float, float]]
    losses: Mapping[str, str]
    class_keys: tuple[str, ...]

    @property
    def has_masks(self) -> bool:
        """Whether its data need masks."""
        return MASK_CLASSES in self.class_keys


def _backbone(last_level: str = 'maxpool', *, fpn_norm: bool = False) -> BackboneWithFPN:
    """ResNet-50 with frozen norms, of which three stages are trained, and FPN; ``last_level`` as in frdet's FPN."""
    body = resnet50(norm_layer=FrozenBatchNorm2d)
    levels: dict[str, Any] = {}
    if last_level != 'maxpool':
        channels = body.inplanes if last_level == 'p6p7_on_c5' else 256
        levels = dict(returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(channels, 256))
    return _resnet_fpn_extractor(body, 3, norm_layer=FrozenBatchNorm2d if fpn_norm else None, **levels)


def _v2_heads(backbone: BackboneWithFPN) -> dict[str, Any]:
    sizes = tuple((x,) for x in (32, 64, 128, 256, 512))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    return dict(
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(backbone.out_channels, anchors.num_anchors_per_location()[0], conv_depth=2),
        box_head=FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=FrozenBatchNorm2d),
    )


def _faster_rcnn_v2(classes: int) -> FasterRCNN:
    backbone = _backbone(fpn_norm=True)
    return FasterRCNN(backbone, classes, **_v2_heads(backbone))


def _mask_rcnn_v2(classes: int) -> MaskRCNN:
    backbone = _backbone(fpn_norm=True)
    mask_head = MaskRCNNHeads(256, [256] * 4, 1, norm_layer=FrozenBatchNorm2d)
    return MaskRCNN(backbone, classes, mask_head=mask_head, **_v2_heads(backbone))


def _retinanet_v2(classes: int) -> RetinaNet:
    backbone = _backbone('p6p7_on_c5')
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    head = RetinaNetHead(256, anchors.num_anchors_per_location()[0], classes, norm_layer=partial(nn.GroupNorm, 32))
    head.regression_head._loss_type = 'giou'
    return RetinaNet(backbone, classes, anchor_generator=anchors, head=head)


_RPN = {'rpn.head.cls_logits': (0.3, 0.0), 'rpn.head.bbox_pred': (0.2, 0.0)}
_BOXES = {'roi_heads.box_predictor.cls_score': (1.5, 0.0), 'roi_heads.box_predictor.bbox_pred': (0.5, 0.0)}
_MASKS = {'roi_heads.mask_predictor.mask_fcn_logits': (2.0, 0.0)}
# As after training, few of the 18 million scores of an image are above the threshold.
_RETINA = {
    'head.classification_head.cls_logits': (1.0, -6.5),
    'head.regression_head.bbox_reg': (0.2, 0.0),
}
_FCOS = {
    'head.classification_head.cls_logits': (1.0, -6.0),
    'head.regression_head.bbox_reg': (1.0, 4.0),
    'head.regression_head.bbox_ctrness': (1.0, 0.0),
}
_TWO_STAGES = {
    'loss_objectness': 'loss_rpn_cls',
    'loss_rpn_box_reg': 'loss_rpn_bbox',
    'loss_classifier': 'loss_cls',
    'loss_box_reg': 'loss_bbox',
}
_WITH_MASKS = {**_TWO_STAGES, 'loss_mask': 'loss_mask'}
_ONE_STAGE = {'classification': 'loss_cls', 'bbox_regression': 'loss_bbox'}
_HEAD = ('model.bbox_head.num_classes',)

FAMILIES = {
    'faster_rcnn': Family(
        lambda classes: FasterRCNN(_backbone(), classes),
        'torchvision_r50_fpn.py', {**_RPN, **_BOXES}, _TWO_STAGES, (BBOX_CLASSES,),
    ),
    'faster_rcnn_v2': Family(
        _faster_rcnn_v2, 'torchvision_r50_fpn_v2.py', {**_RPN, **_BOXES}, _TWO_STAGES, (BBOX_CLASSES,)
    ),
    'mask_rcnn': Family(
        lambda classes: MaskRCNN(_backbone(), classes),
        'torchvision_mask_rcnn_r50_fpn.py', {**_RPN, **_BOXES, **_MASKS}, _WITH_MASKS, (BBOX_CLASSES, MASK_CLASSES),
    ),
    'mask_rcnn_v2': Family(
        _mask_rcnn_v2,
        'torchvision_mask_rcnn_r50_fpn_v2.py', {**_RPN, **_BOXES, **_MASKS}, _WITH_MASKS, (BBOX_CLASSES, MASK_CLASSES),
    ),
    'retinanet': Family(
        lambda classes: RetinaNet(_backbone('p6p7_on_p5'), classes),
        'torchvision_retinanet_r50_fpn.py', _RETINA, _ONE_STAGE, _HEAD,
    ),
    'retinanet_v2': Family(_retinanet_v2, 'torchvision_retinanet_r50_fpn_v2.py', _RETINA, _ONE_STAGE, _HEAD),
    'fcos': Family(
        lambda classes: FCOS(_backbone('p6p7_on_p5'), classes),
        'torchvision_fcos_r50_fpn.py', _FCOS, {**_ONE_STAGE, 'bbox_ctrness': 'loss_centerness'}, _HEAD,
    ),
}  # fmt: skip
