"""Every shipped config: reads, passes the check, and its model builds; an ablation differs where it says."""

from pathlib import Path

import pytest

from frdet.config import check_config, load_config
from frdet.registry import DETECTORS
from tests.test_peers_page import flat

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', CONFIGS, ids=relative)
def test_config_is_whole(path):
    cfg = load_config(path)
    check_config(cfg)
    model = DETECTORS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) > 1_000_000


@pytest.mark.parametrize('path', CONFIGS, ids=relative)
def test_the_check_needs_no_data(path, tmp_path, monkeypatch):
    """Neither images nor annotations are there, nor weights; afterwards nothing is there that was not before."""
    monkeypatch.setenv('FRDET_DATA_ROOT', str(tmp_path / 'nowhere'))
    monkeypatch.chdir(tmp_path)
    check_config(load_config(path))
    assert list(tmp_path.iterdir()) == []


def test_reference_model():
    """detectron2 counts 41.7 million parameters in R50-FPN, the frozen ones among them."""
    cfg = load_config(ROOT / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py')
    model = DETECTORS.build(cfg.model)
    count = sum(p.numel() for p in model.parameters())
    # Convolutions of ResNet-50 without fc: 23,454,912. FPN: laterals 256 * (256 + 512 + 1024 + 2048) + 4 * 256, outputs
    # 4 * (9 * 256 * 256 + 256). RPN: 9 * 256 * 256 + 256, 3 * 257, 12 * 257. Box head: 1024 * 12545, 1024 * 1025,
    # 81 * 1025, 320 * 1025.
    fpn = 256 * 3840 + 4 * 256 + 4 * (9 * 256 * 256 + 256)
    rpn = 9 * 256 * 256 + 256 + 15 * 257
    box = 1024 * 12545 + 1024 * 1025 + 401 * 1025
    assert count == 23_454_912 + fpn + rpn + box
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    # Stem 64 * 3 * 49; layer1: 64 * 64 + 9 * 64 * 64 + 2 * 64 * 256, then twice 256 * 64 + 9 * 64 * 64 + 64 * 256.
    assert frozen == 9408 + (4096 + 36864 + 16384 + 16384) + 2 * (16384 + 36864 + 16384)


def test_torchvisions_second_model():
    """torchvision counts 43,712,278 parameters, 4 * 1025 of them for boxes of the background, which are not used.

    The statistics of FrozenBN are no parameters, so BN is put in its place.
    """
    cfg = load_config(ROOT / 'configs/_base_/models/faster_rcnn_r50_fpn_v2.py')
    for part in (cfg.model.backbone, cfg.model.neck, cfg.model.roi_head.bbox_head):
        assert part.norm == dict(type='FrozenBN')
        part.norm.type = 'BN'
    assert sum(p.numel() for p in DETECTORS.build(cfg.model).parameters()) == 43_712_278 - 4 * 1025


def test_torchvisions_second_model_has_one_set_of_rules():
    """Its config in _base_ and its config in interop agree, but for keys that only one of them has."""
    names = ('_base_/models/faster_rcnn_r50_fpn_v2', 'interop/torchvision_r50_fpn_v2')
    base, interop = (flat(load_config(ROOT / f'configs/{name}.py').model, 'model') for name in names)
    for key in base.keys() & interop.keys():
        assert interop[key] == (pytest.approx(base[key]) if key.endswith(('mean', 'std')) else base[key]), key
    assert {key: base[key] for key in base.keys() - interop.keys()} == {
        'model.rpn_head.loss_bbox.loss_weight': 1.0,
        'model.roi_head.loss_bbox.loss_weight': 1.0,
    }
    # Defaults of the components, which torchvision_r50_fpn.py sets because another project differs.
    assert {interop[key] for key in interop.keys() - base.keys()} <= {None, False, 1e-5, 4.0, 224.0}


def test_reference_data():
    cfg = load_config(ROOT / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py')
    train = cfg.train_dataloader
    assert train.batch_size == 16 and train.num_workers == 2
    assert train.dataset.ann_file == 'annotations/instances_val2017.json'
    assert train.dataset.pipeline[1] == dict(type='ResizeShortestEdge', short_side=800, max_size=1333)


@pytest.mark.parametrize(
    ('name', 'place', 'value'),
    [
        ('no_warmup', 'param_scheduler', [dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11], gamma=0.1)]),
        ('giou', 'model.roi_head.loss_bbox.type', 'GIoULoss'),
        ('smooth_l1', 'model.rpn_head.loss_bbox.beta', 1 / 9),
        ('iou_balanced', 'model.roi_head.sampler.type', 'IoUBalancedSampler'),
        ('avg_fusion', 'model.neck.fuse_type', 'avg'),
        ('bn', 'model.backbone.norm.type', 'BN'),
        ('focal_rpn', 'model.rpn_head.loss_cls.type', 'FocalLoss'),
        ('scratch', 'model.neck.norm.type', 'GN'),
    ],
)
def test_ablation(name, place, value):
    """An ablation changes what it says; what it does not touch is the base's."""
    base = load_config(ROOT / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py')
    cfg = load_config(ROOT / f'configs/faster_rcnn/r50_fpn_1x_cocoval_{name}.py')
    found = cfg
    for key in place.split('.'):
        found = found[key]
    assert found == value
    assert cfg.optim_wrapper == base.optim_wrapper
    assert cfg.model.rpn_head.anchor_generator == base.model.rpn_head.anchor_generator
