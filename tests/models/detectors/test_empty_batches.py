"""A batch without any box trains every part, whatever losses, samplers and norms; two processes: test_halves.py."""

import pytest
import torch
from mmengine.optim import OptimWrapper

from frdet.config import load_config
from frdet.registry import DETECTORS
from tests.apis.halves import batch
from tests.test_configs import ROOT

NAMES = ('_giou', '_iou_balanced', '_focal_rpn', '_scratch', '_ohem')  # the shipped one's: test_faster_rcnn.py


@pytest.mark.parametrize('name', NAMES)
def test_every_gradient_is_there_and_finite(name):
    """A parameter without a gradient would make other processes wait for it."""
    options = {
        'model.backbone.depth': 18,
        'model.backbone.style': 'pytorch',
        'model.backbone.init_cfg': None,
        'model.neck.in_channels': (64, 128, 256, 512),
        'model.rpn_head.post_nms_train': 50,
    }
    cfg = load_config(ROOT / f'configs/faster_rcnn/r50_fpn_1x_cocoval{name}.py', options)
    model = DETECTORS.build(cfg.model).train()
    params = [p for p in model.parameters() if p.requires_grad]
    found = {}

    class Look(OptimWrapper):
        def step(self, **kwargs):
            found.update({name: p.grad for name, p in model.named_parameters() if p.requires_grad})

    losses = model.train_step(batch([1, 2], boxes=False), Look(torch.optim.SGD(params, lr=0.1)))
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses['loss_rpn_bbox'] == losses['loss_bbox'] == 0
    assert len(found) == len(params)
    assert all(g is not None and g.isfinite().all() for g in found.values()), [n for n, g in found.items() if g is None]
