from pathlib import Path

import pytest

from frdet.config import check_config, load_config
from frdet.errors import ConfigError
from frdet.registry import BACKBONES

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py'


def child(tmp_path, text):
    path = tmp_path / 'child.py'
    path.write_text(f"_base_ = '{MAIN}'\n{text}\n")
    return load_config(path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'model = dict(backbone=dict(dept=18))',
            r"model\.backbone \(.*child\.py:2\): .*no argument 'dept': did you mean depth",
        ),
        (
            "model = dict(backbone=dict(type='ResNt'))",
            r"'ResNt' is not in the registry of backbones: did you mean ResNet",
        ),
        (
            "model = dict(backbone=dict(type='FPN', _delete_=True))",
            r"'FPN' .*it is a neck, and stands where a backbone",
        ),
        ("model = dict(rpn_head=dict(sampler=dict(type='RandomSampler', _delete_=True)))", 'needs num, pos_fraction'),
        ('model = dict(rpn_head=dict(sampler=dict(number=3)))', r"sampler RandomSampler has no argument 'number'"),
        ("model = dict(neck=dict(norm=dict(type='BatchNorm')))", r'registry of norm layers'),
        (
            'train_dataloader = dict(batchsize=4)',
            r'train_dataloader\.batchsize \(.*child\.py:2\): unknown key: .*batch_size',
        ),
        ("train_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImg')]))", r'dataset\.pipeline\.0.*LoadImage'),
        (
            "train_dataloader = dict(sampler=dict(type='RandomSampler'))",
            r'it is a sampler, and stands where a data sampler',
        ),
        ('train_cfg = dict(max_epoch=3)', r"no argument 'max_epoch': did you mean max_epochs"),
        ("param_scheduler = [dict(type='MultiStepLR', milestone=[8])]", r"param_scheduler\.0.*'milestone'"),
        ('optim_wraper = dict()', r'optim_wraper \(.*child\.py:2\): unknown key: did you mean optim_wrapper'),
        ('default_hooks = dict(checkpoint=dict(intervall=2))', r"'intervall': did you mean interval"),
        ("custom_hooks = [dict(type='EMAHok')]", r'did you mean EMAHook'),
        ("val_evaluator = dict(anfile='x')", r"CocoMetric has no argument 'anfile'"),
        ('auto_scale_lr = dict(base_batchsize=16)', r'auto_scale_lr\.base_batchsize.*base_batch_size'),
        ("optim_wrapper = dict(optimizer=dict(type='SGD', momentun=0.9))", r"'momentun': did you mean momentum"),
    ],
)
def test_mistake_is_named_with_place_and_line(tmp_path, text, message):
    cfg = child(tmp_path, text)
    with pytest.raises(ConfigError, match=message):
        check_config(cfg)


@pytest.mark.parametrize(
    'text',
    [
        'my_variable = 3\nimage_size = (64, 64)\ntest_pipelines = []',
        "custom_hooks = [dict(type='EMAHook', momentum=0.001)]",
        "optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05))",
        'optim_wrapper = dict(accumulative_counts=2, clip_grad=dict(max_norm=35, norm_type=2))',
        'train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=3, val_interval=1)',
        "inner = dict(type='CocoDataset', ann_file='a.json', data_prefix=dict(img='x'))\n"
        "train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2, dataset=inner))",
        "param_scheduler = [dict(type='CosineAnnealingLR', T_max=12, by_epoch=True, convert_to_iter_based=True)]",
        "visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])",
        'val_dataloader = None\nval_cfg = None\nval_evaluator = None',
    ],
)
def test_right_config_passes(tmp_path, text):
    check_config(child(tmp_path, text))


def test_custom_component_is_checked_by_its_signature(tmp_path):
    @BACKBONES.register_module(name='CheckingTestNet', force=True)
    class Net:
        def __init__(self, *, width: int, part: dict):
            pass

    part = "part=dict(type='L1Loss', {})"
    text = "model = dict(backbone=dict(_delete_=True, type='CheckingTestNet', width=3, {}))"
    check_config(child(tmp_path, text.format(part.format('loss_weight=2.0'))))
    with pytest.raises(ConfigError, match=r"model\.backbone\.part .*L1Loss has no argument 'los_weight'"):
        check_config(child(tmp_path, text.format(part.format('los_weight=2.0'))))
