"""The models of the shipped configs have the parameters of the other projects: all names, and all shapes.

torchvision's are those of its models, detectron2's are written down by its rules of naming.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models import detection

from frdet.checkpoints import convert_state_dict
from frdet.checkpoints.fit import check_fit
from frdet.config import load_config
from frdet.registry import DETECTORS
from tests.checkpoints.test_detectors import detectron2_shapes

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
Shapes = dict[str, tuple[int, ...]]


def model_of(config: str) -> torch.nn.Module:
    with torch.device('meta'):
        return DETECTORS.build(load_config(CONFIGS / config).model)


def empty(shapes: Shapes) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('retinanet_resnet50_fpn', 'interop/torchvision_retinanet_r50_fpn.py'),
        ('retinanet_resnet50_fpn_v2', 'interop/torchvision_retinanet_r50_fpn_v2.py'),
        ('fcos_resnet50_fpn', 'interop/torchvision_fcos_r50_fpn.py'),
        ('maskrcnn_resnet50_fpn', 'interop/torchvision_mask_rcnn_r50_fpn.py'),
        ('maskrcnn_resnet50_fpn_v2', 'interop/torchvision_mask_rcnn_r50_fpn_v2.py'),
    ],
)
def test_torchvisions(name: str, config: str) -> None:
    """Those of its COCO checkpoints, with 91 classes; Faster R-CNN's are tested in test_detectors.py."""
    with torch.device('meta'):
        theirs = getattr(detection, name)(weights=None, weights_backbone=None).state_dict()
    ours = model_of(config)
    check_fit(ours, convert_state_dict(empty({key: tuple(value.shape) for key, value in theirs.items()})), name)
    own = empty({key: tuple(value.shape) for key, value in ours.state_dict().items()})
    back = convert_state_dict(own, target='torchvision')
    assert {key: value.shape for key, value in back.items()} == {
        key: value.shape for key, value in theirs.items() if 'num_batches_tracked' not in key
    }


def one_stage(p6_channels: int, *, norm: bool) -> Shapes:
    """A detector on p3 to p7 with towers of four convolutions of 256 channels."""
    shapes = {name: shape for name, shape in detectron2_shapes().items() if 'bottom_up' in name}
    for level, channels in ((3, 512), (4, 1024), (5, 2048)):
        shapes[f'backbone.fpn_lateral{level}.weight'] = (256, channels, 1, 1)
        shapes[f'backbone.fpn_output{level}.weight'] = (256, 256, 3, 3)
    shapes['backbone.top_block.p6.weight'] = (256, p6_channels, 3, 3)
    shapes['backbone.top_block.p7.weight'] = (256, 256, 3, 3)
    for subnet in ('cls_subnet', 'bbox_subnet'):
        for i in range(4):  # convolution, norm if there is one, ReLU
            shapes[f'head.{subnet}.{(3 if norm else 2) * i}.weight'] = (256, 256, 3, 3)
            if norm:
                shapes[f'head.{subnet}.{3 * i + 1}.weight'] = (256,)
    return shapes


def two_stages() -> Shapes:
    """Faster R-CNN without its box head."""
    return {name: shape for name, shape in detectron2_shapes().items() if 'roi_heads' not in name}


def retinanet() -> Shapes:
    outputs = {'head.cls_score.weight': (720, 256, 3, 3), 'head.bbox_pred.weight': (36, 256, 3, 3)}
    return {**one_stage(2048, norm=False), **outputs}


def fcos() -> Shapes:
    return {
        **one_stage(256, norm=True),
        'head.cls_score.weight': (80, 256, 3, 3),
        'head.bbox_pred.weight': (4, 256, 3, 3),
        'head.ctrness.weight': (1, 256, 3, 3),
    }


def cascade() -> Shapes:
    shapes = two_stages()
    for stage in range(3):
        shapes[f'roi_heads.box_head.{stage}.fc1.weight'] = (1024, 256 * 7 * 7)
        shapes[f'roi_heads.box_head.{stage}.fc2.weight'] = (1024, 1024)
        shapes[f'roi_heads.box_predictor.{stage}.cls_score.weight'] = (81, 1024)
        shapes[f'roi_heads.box_predictor.{stage}.bbox_pred.weight'] = (4, 1024)
    return shapes


def mask_rcnn() -> Shapes:
    shapes = two_stages()
    shapes['roi_heads.box_head.fc1.weight'] = (1024, 256 * 7 * 7)
    shapes['roi_heads.box_head.fc2.weight'] = (1024, 1024)
    shapes['roi_heads.box_predictor.cls_score.weight'] = (81, 1024)
    shapes['roi_heads.box_predictor.bbox_pred.weight'] = (320, 1024)
    return {**shapes, **mask_head()}


def cascade_with_masks() -> Shapes:
    return {**cascade(), **mask_head()}


def mask_head() -> Shapes:
    shapes: Shapes = {f'roi_heads.mask_head.mask_fcn{i + 1}.weight': (256, 256, 3, 3) for i in range(4)}
    shapes['roi_heads.mask_head.deconv.weight'] = (256, 256, 2, 2)
    shapes['roi_heads.mask_head.predictor.weight'] = (80, 256, 1, 1)
    return shapes


def with_biases(shapes: Shapes) -> Shapes:
    """Every layer has a bias but the convolutions of the backbone."""
    biases = {name.replace('weight', 'bias'): shape[:1] for name, shape in shapes.items() if name.endswith('.weight')}
    return {**{n: s for n, s in biases.items() if 'bottom_up' not in n or 'norm' in n}, **shapes}


@pytest.mark.parametrize(
    ('shapes', 'config'),
    [
        (retinanet, 'retinanet/retinanet_r50_fpn_1x_coco.py'),
        (fcos, 'fcos/fcos_r50_fpn_1x_coco.py'),
        (cascade, 'cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco.py'),
        (cascade_with_masks, 'cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_coco.py'),
        (mask_rcnn, 'mask_rcnn/mask_rcnn_r50_fpn_1x_coco.py'),
    ],
)
def test_detectron2s(shapes: Callable[[], Shapes], config: str) -> None:
    theirs = with_biases(shapes())
    ours = model_of(config)
    check_fit(ours, convert_state_dict(empty(theirs)), config)
    own = empty({name: tuple(value.shape) for name, value in ours.state_dict().items()})
    back = convert_state_dict(own, target='detectron2')
    assert {name: tuple(value.shape) for name, value in back.items()} == theirs
