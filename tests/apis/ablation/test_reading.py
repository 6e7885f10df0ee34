"""From files and arguments to a plan; each mistake has its words before anything runs."""

from pathlib import Path

import pytest

from frdet.apis.ablation.reading import is_study, read_configs, read_study
from frdet.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
R50 = ROOT / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py'
QUICK = ROOT / 'configs/quickstart/r18_fpn_shapes.py'


def write(path, text):
    path.write_text(text)
    return path


def study(folder, text='', variants="dict(average={'model.neck.fuse_type': 'avg'})", base=QUICK):
    return write(folder / 'study.py', f'base = {str(base)!r}\nvariants = {variants}\n{text}')


def differences(plan):
    return {variant.name: variant.differences for variant in plan.variants}


def test_the_shipped_ablations_differ_in_what_they_say():
    names = ('giou', 'no_warmup', 'avg_fusion', 'scratch')
    plan = read_configs([R50, *(R50.with_name(f'{R50.stem}_{name}.py') for name in names)])
    found = differences(plan)
    assert list(found) == ['r50_fpn_1x_cocoval', *names]  # the name of the base is not said again
    assert found['r50_fpn_1x_cocoval'] == {}
    assert found['avg_fusion'] == {'model.neck.fuse_type': ("'sum'", "'avg'")}
    assert found['giou'] == {
        'model.roi_head.loss_bbox.type': ("'L1Loss'", "'GIoULoss'"),
        'model.roi_head.loss_bbox.loss_weight': ('1.0', '10.0'),
    }
    assert found['scratch']['model.backbone.norm.type'] == ("'FrozenBN'", "'GN'")
    assert found['scratch']['model.backbone.init_cfg.type'] == ("'Pretrained'", None)  # init_cfg=None there
    assert {key.split('.')[0] for key in found['no_warmup']} == {'param_scheduler'}
    assert (plan.seeds, plan.metric, plan.less_is_better, plan.budget) == ((0, 1, 2), 'coco/bbox_mAP', False, None)


def test_a_file_with_files_overrides_grids_and_options(tmp_path):
    write(
        tmp_path / 'focal.py', f'_base_ = {str(QUICK)!r}\nmodel = dict(rpn_head=dict(loss_cls=dict(type="FocalLoss")))'
    )
    path = study(
        tmp_path,
        "grids = dict(samples={'model.rpn_head.sampler.num': [256, 64], 'model.roi_head.sampler.num': [64, 32]})\n"
        "seeds = [3, 1]\noptions = {'train_cfg.max_epochs': 2}\n"
        "budget = 1.5\nbootstrap = 0\nmetric = 'coco/bbox_mAP_50'",
        "dict(focal='focal.py', average={'model.neck.fuse_type': 'avg'})",
    )
    assert is_study(path) and not is_study(QUICK)
    plan = read_study(path, seeds=None, options={'train_dataloader.batch_size': 2})
    assert (plan.seeds, plan.metric, plan.budget, plan.bootstrap) == ((3, 1), 'coco/bbox_mAP_50', 1.5, 0)
    assert {(v.cfg.train_cfg.max_epochs, v.cfg.train_dataloader.batch_size) for v in plan.variants} == {(2, 2)}
    sampler = {'rpn_head': ('256', '64'), 'roi_head': ('64', '32')}
    changed = {f'model.{head}.sampler.num': values for head, values in sampler.items()}
    assert differences(plan) == {
        'r18_fpn_shapes': {},
        'focal': {'model.rpn_head.loss_cls.type': ("'BinaryCrossEntropyLoss'", "'FocalLoss'")},
        'average': {'model.neck.fuse_type': ("'sum'", "'avg'")},
        'samples-rpn_head.sampler.num=256-roi_head.sampler.num=32': {
            'model.roi_head.sampler.num': changed['model.roi_head.sampler.num']
        },
        'samples-rpn_head.sampler.num=64-roi_head.sampler.num=64': {
            'model.rpn_head.sampler.num': changed['model.rpn_head.sampler.num']
        },
        'samples-rpn_head.sampler.num=64-roi_head.sampler.num=32': changed,
    }
    assert plan.notes == [
        'samples-rpn_head.sampler.num=256-roi_head.sampler.num=64 is the base itself, and is left out'
    ]


def test_a_variant_of_another_base_is_refused_and_may_be_allowed(tmp_path):
    base = write(tmp_path / 'mine.py', f'_base_ = {str(QUICK)!r}\ntrain_dataloader = dict(batch_size=2)\n')
    other = write(tmp_path / 'avg.py', f'_base_ = {str(QUICK)!r}\nmodel = dict(neck=dict(fuse_type="avg"))\n')
    with pytest.raises(ConfigError) as info:
        read_configs([base, other])
    words = str(info.value)
    assert 'avg differs from the base also in 1 key ' in words and '--allow train_dataloader.batch_size' in words
    assert 'train_dataloader.batch_size (' in words and 'r18_fpn_shapes.py:' in words
    plan = read_configs([base, other], allow=['train_dataloader'])
    assert set(plan.variants[1].differences) == {'train_dataloader.batch_size', 'model.neck.fuse_type'}
    # A chain of files over the base says all that it changes.
    write(tmp_path / 'second.py', '_base_ = "./third.py"\nmodel = dict(neck=dict(fuse_type="avg"))\n')
    write(tmp_path / 'third.py', '_base_ = "./mine.py"\nmodel = dict(neck=dict(out_channels=32))\n')
    found = read_configs([base, tmp_path / 'second.py']).variants[1].differences
    assert set(found) == {'model.neck.fuse_type', 'model.neck.out_channels'}


@pytest.mark.parametrize(
    ('text', 'less'),
    [('', False), ("metric = 'val_loss'", True), ("metric = 'val_loss'\nless_is_better = False", False),
     ("metric = 'coco/error'\nless_is_better = True", True)],
)  # fmt: skip
def test_less_of_a_loss_is_better(tmp_path, text, less):
    assert read_study(study(tmp_path, text)).less_is_better is less


def test_variables_and_places_are_no_differences(tmp_path):
    variants = "dict(same={'visualizer.vis_backends': [dict(type='LocalVisBackend')], 'work_dir': 'elsewhere'})"
    with pytest.raises(ConfigError, match='same differs from the base in nothing'):
        read_study(study(tmp_path, variants=variants))


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('seeds = 1', ['1 seed:', 'two or more']),
        ('seeds = 0', ['0 seeds:', 'two or more']),
        ('seeds = [4]', ['1 seed:']),
        ('seeds = [4, 4]', ['[4, 4]', 'different']),
        ('seeds = [-1, 4]', ['[-1, 4]', 'from 0']),
        ("seeds = 'three'", ['seeds (', 'study.py:3', "'three'", 'expected']),
        ('sedes = 3', ['sedes (', 'study.py:3', 'did you mean seeds?']),
        ('bootstrap = -1', ['bootstrap is -1']),
        ('variants = {}', ['nothing to compare']),
        ("variants = {'a/b': {}}", ["'a/b'", 'folder']),
        ("variants = dict(r18_fpn_shapes={'model.neck.fuse_type': 'avg'})", ['r18_fpn_shapes', 'another name']),
        ('variants = dict(a=3)', ['Variant a', 'found 3', 'overrides']),
        ('variants = dict(a={})', ['a differs from the base in nothing']),
        ("variants = dict(a={'model.nekc.fuse_type': 'avg'})", ['Variant a', 'nekc', 'did you mean neck?']),
        ("variants = dict(a={'model.neck.fuse_type': 3})", ['Variant a', 'fuse_type']),
        ("variants = dict(a='missing.py')", ['Variant a', 'missing.py', 'does not exist']),
        ("base = 'missing.py'", ['The base', 'missing.py', 'does not exist']),
        ('variants = {}\ngrids = dict(g={})', ['Grid g', 'lists of values']),
        ("variants = {}\ngrids = dict(g={'model.neck.fuse_type': 'avg'})", ['Grid g', 'lists of values']),
        ("variants = {}\ngrids = dict(g={'model.neck.fuse_type': ['sum']})", ['Every combination', 'base itself']),
        ("options = {'train_cfg.max_epoch': 3}", ['The base', 'max_epoch', 'did you mean max_epochs?']),
        # The option is set for all, so the variant has nothing of its own.
        ("variants = dict(a='avg.py')\noptions = {'model.neck.fuse_type': 'avg'}", ['a differs from the base in noth']),
    ],
)  # fmt: skip
def test_mistakes(tmp_path, text, words):
    write(tmp_path / 'avg.py', f'_base_ = {str(QUICK)!r}\nmodel = dict(neck=dict(fuse_type="avg"))\n')
    with pytest.raises(ConfigError) as info:
        read_study(study(tmp_path, text))
    for word in words:
        assert word in str(info.value)


def test_mistakes_in_arguments(tmp_path):
    for paths, words in (
        ([R50], 'nothing to be compared with'),
        ([R50, R50], 'given twice'),
        ([R50, R50.with_name('r50_fpn_1x_cocoval_goiu.py')], 'r50_fpn_1x_cocoval_giou.py'),
        ([tmp_path / 'no.py', R50], 'The base'),
    ):
        with pytest.raises(ConfigError, match=words):
            read_configs(paths)
    with pytest.raises(ConfigError, match='has no base, so it is no study'):
        read_study(write(tmp_path / 'empty.py', 'seeds = 3\n'))
