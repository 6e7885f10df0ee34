"""Images of which resizing leaves one pixel a side: through the pipeline, the detector, and back."""

import itertools

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from frdet.config import load_config
from frdet.datasets.transforms import FilterBoxes, LoadImage, PackDetInputs, ResizeShortestEdge
from frdet.registry import DETECTORS
from frdet.structures import to_original
from tests.test_configs import ROOT

SIZES = ((1, 600), (700, 1), (2, 6000), (1, 1), (50, 20000), (3000, 1))  # (height, width)


@pytest.fixture
def model():
    options = {
        'model.backbone.depth': 18,
        'model.backbone.style': 'pytorch',
        'model.backbone.init_cfg': None,
        'model.neck.in_channels': (64, 128, 256, 512),
        'model.rpn_head.post_nms_train': 50,
        'model.rpn_head.post_nms_test': 50,
        'model.roi_head.score_thr': 0.0,
    }
    cfg = load_config(ROOT / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py', options)
    return DETECTORS.build(cfg.model)


def test_they_are_trained_and_detected_on(model):
    made = []
    for (height, width), backend in zip(SIZES, itertools.cycle(('pillow', 'cv2', 'torch'))):
        steps = [LoadImage(), ResizeShortestEdge(short_side=64, max_size=128, backend=backend)]
        steps += [FilterBoxes(min_side=1e-5), PackDetInputs()]
        data = dict(img=np.full((height, width, 3), 90, np.uint8), gt_labels=np.zeros(1, np.int64))
        data['gt_bboxes'] = np.array([[0, 0, width, height]], np.float32)
        for step in steps:
            data = step(data)
        made.append(data)
    batch = {key: [data[key] for data in made] for key in ('inputs', 'data_samples')}
    assert all(len(sample.gt_instances) == 1 for sample in batch['data_samples'])
    losses = model.train()(**model.data_preprocessor(batch, True), mode='loss')
    assert all(torch.as_tensor(value).isfinite().all() for name, value in losses.items() if 'loss' in name)
    for (height, width), sample in zip(SIZES, batch['data_samples'], strict=True):
        x, y = sample.scale_factor
        assert (width * x, height * y) == pytest.approx(sample.img_shape[::-1])
        whole = to_original(InstanceData(bboxes=sample.gt_instances.bboxes), sample.img_shape, (height, width))
        np.testing.assert_allclose(whole.bboxes.numpy(), [[0, 0, width, height]], rtol=1e-6)
    model.eval()
    with torch.no_grad():
        found = model(**model.data_preprocessor(batch, False), mode='predict')
    for (height, width), sample in zip(SIZES, found, strict=True):
        boxes = sample.pred_instances.bboxes
        assert boxes.isfinite().all()
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height] * 2) * (1 + 1e-6)).all()
