"""torchvision's RetinaNet and FCOS, and frdet's with the same rules and the same weights."""

import re
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead, _default_anchorgen
from torchvision.models.resnet import resnet18
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from frdet.config import load_config
from frdet.models.detectors import SingleStageDetector
from frdet.registry import DETECTORS
from tests.models.torchvision_twin import NUM_CLASSES, SHORT_SIDE, calibrate_layers
from tests.test_configs import ROOT

#: Family -> its config in ``configs/interop``.
CONFIGS = {
    'retinanet': 'torchvision_retinanet_r50_fpn',
    'retinanet_v2': 'torchvision_retinanet_r50_fpn_v2',
    'fcos': 'torchvision_fcos_r50_fpn',
}
CHANNELS = 64  # of the pyramid
SCORE_THR = {'retinanet': 0.3, 'retinanet_v2': 0.3, 'fcos': 0.4}


def torchvision_model(family: str, images: list[Tensor]) -> nn.Module:
    """With ResNet-18 and random weights that make varied predictions on ``images``, RGB of 0..1."""
    on_c5 = family == 'retinanet_v2'
    last = LastLevelP6P7(512 if on_c5 else CHANNELS, CHANNELS)
    maps = {f'layer{i + 2}': str(i) for i in range(3)}
    backbone = BackboneWithFPN(resnet18(norm_layer=FrozenBatchNorm2d), maps, [128, 256, 512], CHANNELS, last)
    backbone.body.requires_grad_(False)
    for name in maps:
        backbone.body[name].requires_grad_(True)
    options: dict[str, Any] = dict(min_size=SHORT_SIDE, max_size=10000, score_thresh=SCORE_THR[family])
    if family == 'fcos':
        model = FCOS(backbone, NUM_CLASSES, **options)
    else:
        model = RetinaNet(backbone, NUM_CLASSES, anchor_generator=_default_anchorgen(), **options)
        if on_c5:
            model.head = RetinaNetHead(CHANNELS, 9, NUM_CLASSES, norm_layer=lambda channels: nn.GroupNorm(32, channels))
            model.head.regression_head._loss_type = 'giou'
    of_class, of_box = model.head.classification_head, model.head.regression_head
    spreads = [(of_class.cls_logits, 1.5), (of_box.bbox_reg, 0.5)]
    if family == 'fcos':
        spreads = [(of_class.cls_logits, 1.5), (of_box.bbox_reg, 0.5), (of_box.bbox_ctrness, 1.0)]
    calibrate_layers(model, images, spreads)
    if family == 'fcos':  # distances that are rarely cut to 0
        nn.init.constant_(of_box.bbox_reg.bias, 2.0)
    return model


def frdet_model(family: str, reference: nn.Module) -> SingleStageDetector:
    """The shipped config with ResNet-18 and few classes, with the weights of ``reference``."""
    options = {
        'model.backbone': dict(depth=18, init_cfg=None, norm=dict(type='FrozenBN')),
        'model.neck': dict(in_channels=(128, 256, 512), out_channels=CHANNELS),
        'model.bbox_head': dict(
            in_channels=CHANNELS, feat_channels=CHANNELS, num_classes=NUM_CLASSES, score_thr=SCORE_THR[family]
        ),
    }
    cfg = load_config(ROOT / f'configs/interop/{CONFIGS[family]}.py', options)
    model = DETECTORS.build(cfg.model)
    model.load_state_dict(to_frdet(reference.state_dict()), strict=True)
    return model


def to_frdet(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights, or gradients, of torchvision's model under frdet's names, and the nine anchors in frdet's order."""
    last = 'conv' if any('bbox_ctrness' in name for name in tensors) else 'retina'
    converted = {_name(name).replace('OUT', last): tensor for name, tensor in tensors.items()}
    for name in [name for name in converted if 'retina_' in name]:  # of rows (ratio, size, ...)
        converted[name] = converted[name].unflatten(0, (3, 3, -1)).transpose(0, 1).flatten(0, 2)
    return converted


def _name(name: str) -> str:
    layers = {'classification': 'cls', 'regression': 'reg'}
    outputs = {'cls_logits': 'cls', 'bbox_reg': 'reg', 'bbox_ctrness': 'centerness'}
    if part := re.fullmatch(r'backbone\.body\.(.*)', name):
        return f'backbone.{part[1]}'
    if part := re.fullmatch(r'backbone\.fpn\.(inner|layer)_blocks\.(\d)\.0\.(.*)', name):
        return f'neck.{"lateral" if part[1] == "inner" else "fpn"}_convs.{part[2]}.conv.{part[3]}'
    if part := re.fullmatch(r'backbone\.fpn\.extra_blocks\.p([67])\.(.*)', name):
        return f'neck.fpn_convs.{int(part[1]) - 3}.conv.{part[2]}'
    if part := re.fullmatch(r'head\.(\w+)_head\.conv\.(\d)\.([01])\.(.*)', name):  # RetinaNet
        return f'bbox_head.{layers[part[1]]}_convs.{part[2]}.{("conv", "bn")[int(part[3])]}.{part[4]}'
    if part := re.fullmatch(r'head\.(\w+)_head\.conv\.(\d+)\.(.*)', name):  # FCOS: convolution, norm, ReLU in turn
        layer, kind = divmod(int(part[2]), 3)
        return f'bbox_head.{layers[part[1]]}_convs.{layer}.{("conv", "bn")[kind]}.{part[3]}'
    part = re.fullmatch(r'head\.\w+_head\.(\w+)\.(.*)', name)
    return f'bbox_head.OUT_{outputs[part[1]]}.{part[2]}'
