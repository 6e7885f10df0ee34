"""Every shipped config: reads, passes the check, and its model builds; an ablation differs where it says."""

from pathlib import Path

import pytest
import torch

from frdet.apis.ablation.reading import read_study
from frdet.apis.ablation.space import read_search
from frdet.config import check_config, load_config
from frdet.engine.schedules import resolve_shares
from frdet.registry import ANCHOR_GENERATORS, DETECTORS
from tests.test_peers_page import flat

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(p for p in (ROOT / 'configs').rglob('*.py') if not {'_base_', 'studies'} & {*p.parts})


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('path', CONFIGS, ids=relative)
def test_config_is_whole(path):
    cfg = load_config(path)
    check_config(cfg)
    with torch.device('meta'):  # nothing is drawn at random, which takes most of the time
        model = DETECTORS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) > 500_000


@pytest.mark.parametrize('path', CONFIGS, ids=relative)
def test_the_check_needs_no_data(path, tmp_path, monkeypatch):
    """Neither images nor annotations are there, nor weights; afterwards nothing is there that was not before."""
    monkeypatch.setenv('FRDET_DATA_ROOT', str(tmp_path / 'nowhere'))
    monkeypatch.chdir(tmp_path)
    check_config(load_config(path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['demo', 'r18_fpn_shapes'])
def test_quickstart_fits_together(name):
    """Heads expect the strides of the maps, and the schedules and the last checkpoint come at the end of the run."""
    cfg = load_config(ROOT / f'configs/quickstart/{name}.py')
    with torch.no_grad():
        features, _ = DETECTORS.build(cfg.model).eval()(torch.zeros(1, 3, 64, 64), mode='tensor')
    strides = [64 // one.shape[-1] for one in features]
    assert strides == list(cfg.model.rpn_head.anchor_generator.strides)
    pooled = list(cfg.model.roi_head.roi_extractor.strides)
    assert pooled == strides[: len(pooled)]
    epochs = cfg.train_cfg.max_epochs
    assert {one.end for one in cfg.param_scheduler if one.by_epoch} == {epochs}
    assert all(one.get('T_max', epochs) == epochs for one in cfg.param_scheduler)
    assert cfg.default_hooks.checkpoint.interval == epochs


@pytest.mark.parametrize(
    ('name', 'first'),
    [('fcos/fcos_r50_fpn_1x_coco', [0, 0, 8, 8]), ('interop/torchvision_fcos_r50_fpn', [-4, -4, 4, 4])],
)
def test_where_a_cell_of_fcos_lies(name, first):
    """detectron2 measures distances from the middle of the cell of 8 pixels, torchvision from its corner."""
    cfg = load_config(ROOT / f'configs/{name}.py')
    (anchors, *_) = ANCHOR_GENERATORS.build(cfg.model.bbox_head.anchor_generator).grid(
        [(16 // 2**k,) * 2 for k in range(5)]
    )
    assert anchors[0].tolist() == first


def test_the_study_changes_what_it_says():
    plan = read_study(ROOT / 'configs/studies/shapes.py')
    assert [(variant.name, {key.split('.')[-1] for key in variant.differences}) for variant in plan.variants] == [
        ('demo', set()),
        ('giou', {'type', 'loss_weight'}),
        ('no_warmup', {'start_factor'}),
        ('average_fusion', {'fuse_type'}),
    ]
    for variant in plan.variants:
        epochs = variant.cfg.train_cfg.max_epochs
        assert {one.end for one in variant.cfg.param_scheduler if one.by_epoch} == {epochs}


def test_the_search_can_have_its_values():
    assert len(read_search(ROOT / 'configs/studies/search_shapes.py').space) == 3


def test_the_demo_is_the_same_in_every_run():
    assert load_config(ROOT / 'configs/quickstart/demo.py').randomness.seed == 0


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


@pytest.mark.parametrize(
    ('model', 'config'),
    [
        ('faster_rcnn_r50_fpn_v2', 'torchvision_r50_fpn_v2'),
        ('mask_rcnn_r50_fpn_v2', 'torchvision_mask_rcnn_r50_fpn_v2'),
        ('retinanet_r50_fpn_v2', 'torchvision_retinanet_r50_fpn_v2'),
        ('fcos_r50_fpn_torchvision', 'torchvision_fcos_r50_fpn'),
    ],
)
def test_torchvisions_models_have_one_set_of_rules(model, config):
    """Its config in _base_ and its config in interop agree, but for keys that only one of them has."""
    names = (f'_base_/models/{model}', f'interop/{config}')
    base, interop = (flat(load_config(ROOT / f'configs/{name}.py').model, 'model') for name in names)
    for key in base.keys() & interop.keys():
        assert interop[key] == (pytest.approx(base[key]) if key.endswith(('mean', 'std')) else base[key]), key
    assert {key: base[key] for key in base.keys() - interop.keys() if not key.endswith('.loss_weight')} == {}
    assert {base[key] for key in base.keys() - interop.keys()} <= {1.0}
    # Defaults of the components, which torchvision_r50_fpn.py sets because another project differs.
    assert {interop[key] for key in interop.keys() - base.keys()} <= {None, False, 1e-5, 4.0, 224.0}


def test_reference_data():
    cfg = load_config(ROOT / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py')
    train = cfg.train_dataloader
    assert train.batch_size == 16 and train.num_workers == 2
    assert train.dataset.ann_file == 'annotations/instances_val2017.json'
    assert train.dataset.pipeline[1] == dict(type='ResizeShortestEdge', short_side=800, max_size=1333)


@pytest.mark.parametrize(
    ('own', 'model'),
    [
        ('own_data', 'faster_rcnn_r50_fpn_v2'),
        ('own_data_mask_rcnn', 'mask_rcnn_r50_fpn_v2'),
        ('own_data_cascade_rcnn', 'cascade_rcnn_r50_fpn'),
        ('own_data_retinanet', 'retinanet_r50_fpn_v2'),
        ('own_data_fcos', 'fcos_r50_fpn_torchvision'),
    ],
)
def test_own_data_have_the_rules_of_the_weights(own, model):
    """But for the numbers of proposals, samples, detections and classes."""
    found, expected = (
        flat(load_config(ROOT / f'configs/_base_/{name}.py').model, '') for name in (own, f'models/{model}')
    )
    assert found.keys() == expected.keys()
    changed = {key.rpartition('.')[2] for key in found if found[key] != expected[key]}
    assert 'num_classes' in changed
    assert changed <= {'num_classes', 'post_nms_train', 'post_nms_test', 'num', 'max_per_image'}


def test_base_of_own_data():
    """25 steps in each of 20 epochs: a warm-up of 25 steps, drops after 15 and 18 epochs (18.4). The rate is COCO's."""
    cfg, coco = (
        load_config(ROOT / f'configs/{name}.py') for name in ('_base_/own_data', 'faster_rcnn/r50_fpn_1x_coco')
    )
    warmup, steps = resolve_shares(cfg.param_scheduler, cfg.train_cfg.max_epochs, 25 * 20)
    assert (warmup['begin'], warmup['end'], steps['end'], steps['milestones']) == (0, 25, 20, [15, 18])
    rates = [one.optim_wrapper.optimizer.lr / one.auto_scale_lr.base_batch_size for one in (cfg, coco)]
    assert rates[0] == rates[1] and cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size
    assert cfg.model.roi_head.bbox_head.num_classes is None and cfg.train_cfg.val_interval == 1


@pytest.mark.parametrize(
    ('name', 'place', 'value'),
    [
        ('no_warmup', 'param_scheduler', [dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11], gamma=0.1)]),
        ('giou', 'model.roi_head.loss_bbox.type', 'GIoULoss'),
        ('iou', 'model.roi_head.loss_bbox.mode', 'log'),
        ('diou', 'model.roi_head.loss_bbox.type', 'DIoULoss'),
        ('ciou', 'model.roi_head.loss_bbox.type', 'CIoULoss'),
        ('smooth_l1', 'model.rpn_head.loss_bbox.beta', 1 / 9),
        ('iou_balanced', 'model.roi_head.sampler.type', 'IoUBalancedSampler'),
        ('ohem', 'model.roi_head.sampler.type', 'OHEMSampler'),
        ('double_head', 'model.roi_head.bbox_head.reg_roi_scale_factor', 1.3),
        ('avg_fusion', 'model.neck.fuse_type', 'avg'),
        ('pafpn', 'model.neck.type', 'PAFPN'),
        ('soft_nms', 'model.roi_head.nms.type', 'SoftNMS'),
        ('agnostic_nms', 'model.roi_head.nms.class_agnostic', True),
        ('bn', 'model.backbone.norm.type', 'BN'),
        ('dcnv2', 'model.backbone.dcn.type', 'DCNv2'),
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
