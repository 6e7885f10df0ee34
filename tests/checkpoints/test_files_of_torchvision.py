"""Files of torchvision's families through the configs of configs/interop, from the file of an image on.

Faster R-CNN is in test_against_torchvision.py, with its losses and gradients.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from frdet.apis import inference_detector, init_detector
from frdet.config import load_config
from tests.checkpoints.test_against_torchvision import assert_same_detections
from tests.conftest import CocoRoot
from tests.models import torchvision_masks
from tests.models.one_stage_twins import CHANNELS, CONFIGS, SCORE_THR, torchvision_model
from tests.models.torchvision_twin import FC_CHANNELS, NUM_CLASSES, POST_NMS, PRE_NMS, SHORT_SIDE
from tests.test_configs import ROOT


def photo(coco_root: CocoRoot) -> tuple[Path, torch.Tensor]:
    """A photograph, and its RGB of 0..1."""
    path = sorted(coco_root.val_dir.glob('*.jpg'))[1]
    return path, torch.from_numpy(np.array(Image.open(path).convert('RGB'))).permute(2, 0, 1) / 255


def data(num_classes: int) -> dict[str, Any]:
    """The options of a config for images of the twins' size with some classes."""
    return {
        'test_dataloader.dataset.metainfo.classes': [f'class {k}' for k in range(num_classes)],
        'test_dataloader.dataset.pipeline.1': dict(short_side=SHORT_SIDE, max_size=10000),
    }


@torch.no_grad()
@pytest.mark.parametrize('family', CONFIGS)
def test_one_stage(family: str, coco_root: CocoRoot, tmp_path: Path) -> None:
    """torchvision's class 0 is not used, and its anchors have another order."""
    path, image = photo(coco_root)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = torchvision_model(family, [image])
    scores = reference.head.classification_head.cls_logits
    scores.weight.unflatten(0, (-1, NUM_CLASSES))[:, 0] = 0
    scores.bias.unflatten(0, (-1, NUM_CLASSES))[:, 0] = -100
    torch.save(reference.state_dict(), tmp_path / 'torchvision.pth')
    options = {
        'model.backbone': dict(depth=18, init_cfg=None, norm=dict(type='FrozenBN')),
        'model.neck': dict(in_channels=(128, 256, 512), out_channels=CHANNELS),
        'model.bbox_head': dict(in_channels=CHANNELS, feat_channels=CHANNELS, num_classes=NUM_CLASSES - 1),
        'model.bbox_head.score_thr': SCORE_THR[family],
        **data(NUM_CLASSES - 1),
    }
    cfg = load_config(ROOT / f'configs/interop/{CONFIGS[family]}.py', options)
    model = init_detector(cfg, tmp_path / 'torchvision.pth', device='cpu')
    (expected,) = reference.eval()([image])
    x1, y1, x2, y2 = expected['boxes'].unbind(1)
    seen = (x2 > x1) & (y2 > y1)  # torchvision also returns boxes beside the image
    expected = {name: value[seen] for name, value in expected.items()}
    assert len(expected['labels'].unique()) == NUM_CLASSES - 1
    assert_same_detections(inference_detector(model, path).pred_instances, expected, pixels=0.01)


@torch.no_grad()
@pytest.mark.parametrize('version', ['', '_v2'])
def test_masks(version: str, coco_root: CocoRoot, tmp_path: Path) -> None:
    """Of the second version, only what concerns masks: BatchNorm in their head."""
    path, image = photo(coco_root)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = torchvision_masks.torchvision_model(18, [image], norm=bool(version))
    torch.save(reference.state_dict(), tmp_path / 'torchvision.pth')
    mask_channels = dict(num_convs=2, conv_channels=torchvision_masks.CHANNELS, num_classes=NUM_CLASSES)
    options = {
        'model.backbone': dict(depth=18, init_cfg=None, norm=dict(type='FrozenBN')),
        'model.neck': dict(in_channels=(64, 128, 256, 512), norm=None),
        'model.rpn_head': dict(num_convs=1, pre_nms_test=PRE_NMS, post_nms_test=POST_NMS),
        'model.roi_head': dict(score_thr=0.3, max_per_image=torchvision_masks.DETECTIONS),
        'model.roi_head.bbox_head': dict(
            num_classes=NUM_CLASSES, fc_channels=FC_CHANNELS, num_convs=0, num_fcs=2, norm=None
        ),
        'model.roi_head.mask_head': mask_channels,
        **data(NUM_CLASSES),
    }
    cfg = load_config(ROOT / f'configs/interop/torchvision_mask_rcnn_r50_fpn{version}.py', options)
    model = init_detector(cfg, tmp_path / 'torchvision.pth', device='cpu')
    found = inference_detector(model, path).pred_instances
    (expected,) = reference.eval()([image])
    assert_same_detections(found, expected, pixels=0.01)
    order = (found.bboxes[:, None] - expected['boxes']).abs().amax(dim=2).argmin(dim=1)
    pixels = expected['masks'][order, 0] > 0.5
    assert found.masks.shape == pixels.shape and pixels.any()
    assert (found.masks != pixels).float().mean() < 1e-4  # by rounding, at the edges
