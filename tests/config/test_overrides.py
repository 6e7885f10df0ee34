from collections.abc import Sequence

import pytest
from mmengine.config import Config

from frdet.config import apply_overrides, load_config, parse_overrides
from frdet.errors import ConfigError
from frdet.registry import LOSSES


@LOSSES.register_module(name='OverrideTestLoss')
class _Loss:
    def __init__(self, *, loss_weight: float = 1.0, name: str | None = None, sides: int | Sequence[int] = 1):
        pass


def config():
    return Config(
        dict(
            work_dir='here',
            load_from=None,
            resume=False,
            model=dict(
                type='FasterRCNN',
                neck=None,
                roi_head=dict(loss_bbox=dict(type='OverrideTestLoss', sides=(1, 2)), score_thr=0.05),
            ),
            train_dataloader=dict(batch_size=16, dataset=dict(indices=None, metainfo=None)),
            param_scheduler=[dict(type='LinearLR', end=1001), dict(type='MultiStepLR', milestones=[8, 11])],
            optim_wrapper=dict(type='OptimWrapper', clip_grad=None),
            pair=(dict(a=1), dict(a=2)),
        )
    )


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('6', 6),
        ('-0.5', -0.5),
        ('1e-3', 1e-3),
        ('True', True),
        ('None', None),
        ('[1, 2]', [1, 2]),
        ('(1, 2)', (1, 2)),
        ('[(1,), (2,)]', [(1,), (2,)]),
        ('1,2', [1, 2]),
        ('(1,2),(3,4)', [(1, 2), (3, 4)]),
        ('((1,2),3)', ((1, 2), 3)),
        ('[a,b]', ['a', 'b']),
        ('true', True),
        ('[False,true]', [False, True]),
        ('dict(type=SGD,lr=0.1)', {'type': 'SGD', 'lr': 0.1}),
        ('dict(**{"a": 1})', 'dict(**{"a": 1})'),
        ('a.b', 'a.b'),
        ('a,b', ['a', 'b']),
        ("{'max_norm': 35}", {'max_norm': 35}),
        ('dict(max_norm=35, inner=dict(a=[1]))', {'max_norm': 35, 'inner': {'a': [1]}}),
        ('GIoULoss', 'GIoULoss'),
        ("'6'", '6'),
        ('/data/coco', '/data/coco'),
        ('', ''),
        ('a=b', 'a=b'),
        ('[1, 2', '[1, 2'),
    ],
)
def test_values(text, value):
    parsed = parse_overrides([f'k={text}'])['k']
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize('item', ['', 'novalue', '=3', 'a..b=1', '.a=1', 'a.=1'])
def test_no_key_or_no_value(item):
    with pytest.raises(ConfigError, match='expected KEY=VALUE'):
        parse_overrides([item])


@pytest.mark.parametrize(
    ('override', 'read', 'value'),
    [
        ('train_dataloader.batch_size=6', lambda c: c.train_dataloader.batch_size, 6),
        ('param_scheduler.0.end=10', lambda c: c.param_scheduler[0].end, 10),
        ('param_scheduler.1.milestones=[1,2]', lambda c: c.param_scheduler[1].milestones, [1, 2]),
        ('pair.1.a=5', lambda c: c.pair[1]['a'], 5),
        ('load_from=x.pth', lambda c: c.load_from, 'x.pth'),
        ('randomness.seed=3', lambda c: c.randomness.seed, 3),
        ('model.roi_head.score_thr=0', lambda c: c.model.roi_head.score_thr, 0),
        ('model.roi_head.loss_bbox.loss_weight=2', lambda c: c.model.roi_head.loss_bbox.loss_weight, 2),
        ('model.roi_head.loss_bbox.sides=3', lambda c: c.model.roi_head.loss_bbox.sides, 3),
        ('optim_wrapper.clip_grad.max_norm=35', lambda c: c.optim_wrapper.clip_grad, {'max_norm': 35}),
        ('optim_wrapper.clip_grad=dict(max_norm=35)', lambda c: c.optim_wrapper.clip_grad, {'max_norm': 35}),
        (
            "train_dataloader.dataset.metainfo.classes=['a']",
            lambda c: c.train_dataloader.dataset.metainfo.classes,
            ['a'],
        ),
        ("model.neck=dict(type='FPN')", lambda c: c.model.neck.type, 'FPN'),
        ('model.neck.type=FPN', lambda c: c.model.neck.type, 'FPN'),
        ('load_from=None', lambda c: c.load_from, None),
        ("custom_hooks=[dict(type='EMAHook')]", lambda c: c.custom_hooks[0].type, 'EMAHook'),
        ('default_hooks.mine=dict(type=EMAHook)', lambda c: c.default_hooks.mine.type, 'EMAHook'),
        ('env_cfg.dist_cfg.port=29500', lambda c: c.env_cfg.dist_cfg.port, 29500),
    ],
)
def test_applied(override, read, value):
    cfg = config()
    apply_overrides(cfg, parse_overrides([override]))
    assert read(cfg) == value


@pytest.mark.parametrize('override', ['min_size=40', '=dict(min_size=40)'])
def test_keys_of_a_typed_dict(override):
    """``CocoDataset.filter_cfg`` declares its keys; the config names one of them."""
    cfg = load_config('configs/faster_rcnn/r50_fpn_1x_cocoval.py')
    place = 'train_dataloader.dataset.filter_cfg'
    join = '' if override.startswith('=') else '.'
    apply_overrides(cfg, parse_overrides([f'{place}{join}{override}']))
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=True, min_size=40)
    with pytest.raises(ConfigError, match='did you mean min_size'):
        apply_overrides(cfg, parse_overrides([f'{place}{join}{override.replace("min_size", "min_sice")}']))
    with pytest.raises(ConfigError, match='expected int'):
        apply_overrides(cfg, parse_overrides([f'{place}{join}{override.replace("40", "small")}']))


def test_dict_is_merged_and_another_type_replaces_it():
    cfg = config()
    apply_overrides(cfg, {'model.roi_head.loss_bbox': {'loss_weight': 3.0}})
    assert cfg.model.roi_head.loss_bbox == dict(type='OverrideTestLoss', sides=(1, 2), loss_weight=3.0)
    apply_overrides(cfg, {'model.roi_head.loss_bbox': {'type': 'L1Loss'}})
    assert cfg.model.roi_head.loss_bbox == dict(type='L1Loss')


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('train_dataloader.batchsize=6', r"train_dataloader has no 'batchsize': did you mean .*batch_size"),
        ('train_dataloder.batch_size=6', r"the config has no 'train_dataloder': did you mean train_dataloader"),
        ('model.roi_head.loss_bbox.weight=1', r"loss_bbox has no 'weight'"),
        ('param_scheduler.2.end=1', r"a list of 2, '2' is no index"),
        ('param_scheduler.first.end=1', r"'first' is no index"),
        ('work_dir.x=1', r"work_dir is 'here', and has no 'x' inside"),
        ('resum=True', r'did you mean resume'),
        ('model.roi_head.loss_bbox={"wieght": 2}', r"has no 'wieght'"),
    ],
)
def test_unknown_key(override, message):
    with pytest.raises(ConfigError, match=message):
        apply_overrides(config(), parse_overrides([override]))


@pytest.mark.parametrize(
    'override',
    [
        'train_dataloader.batch_size=six',
        'train_dataloader.batch_size=2.5',
        'train_dataloader.batch_size=True',
        'train_dataloader=3',
        'resume=1',
        'work_dir=3',
        'param_scheduler.1.milestones=8',
        'model.roi_head.loss_bbox.loss_weight=much',
        'model.roi_head.loss_bbox.sides=wide',
        'model.roi_head.loss_bbox.name=3',
        'model.roi_head.loss_bbox.loss_weight=[1]',
        'model.roi_head.loss_bbox={"loss_weight": "much"}',
        'randomness.seed=abc',
        'load_from=3',
        'auto_scale_lr.base_batch_size=2.5',
        'train_dataloader.pin_memory=1',
        'optim_wrapper.clip_grad.max_norm=much',
    ],
)
def test_wrong_type(override):
    with pytest.raises(ConfigError, match='expected') as error:
        apply_overrides(config(), parse_overrides([override]))
    assert override.partition('=')[0] in str(error.value)


def test_order_does_not_matter_where_a_type_changes():
    cfg = Config(dict(model=dict(roi_head=dict(loss_bbox=dict(type='L1Loss', loss_weight=2.0)))))
    place = 'model.roi_head.loss_bbox'
    apply_overrides(cfg, parse_overrides([f'{place}.beta=0.5', f'{place}.type=SmoothL1Loss']))
    assert cfg.model.roi_head.loss_bbox == dict(type='SmoothL1Loss', loss_weight=2.0, beta=0.5)


def test_number_replaces_a_number_where_nothing_is_declared():
    cfg = Config(dict(scale=2, optim_wrapper=dict(type='OptimWrapper', clip_grad=dict(max_norm=35))))
    apply_overrides(cfg, parse_overrides(['scale=0.5', 'optim_wrapper.clip_grad.max_norm=0.5']))
    assert (cfg.scale, cfg.optim_wrapper.clip_grad.max_norm) == (0.5, 0.5)
