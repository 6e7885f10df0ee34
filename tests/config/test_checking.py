import subprocess
from pathlib import Path

import pytest
from torch import nn

from frdet.config import check_config, load_config
from frdet.errors import ConfigError
from frdet.registry import (
    ASSIGNERS,
    BACKBONES,
    BBOX_HEADS,
    DENSE_HEADS,
    DETECTORS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    TRANSFORMS,
)
from tests import warm

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py'


@BACKBONES.register_module(name='CheckingTestBody')
class _Body(nn.Module):
    def __init__(self, *, heads: dict, name: str = None, path: Path = None):
        super().__init__()


@TRANSFORMS.register_module(name='CheckingTestStep')
class _Step:
    def __call__(self, results):
        return results


@pytest.fixture(autouse=True)
def _zoo(tmp_path, monkeypatch):
    """Another package, with components of its own."""
    package = tmp_path / 'frdet_checking_zoo'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'registry.py').write_text(
        'from mmengine.registry import MODELS as ROOT, Registry\n'
        "MODELS = Registry('model', parent=ROOT, scope='frdet_checking_zoo')\n"
        '@MODELS.register_module(force=True)\n'
        'class Neck:\n'
        '    def __init__(self, norm_cfg):\n'
        '        pass\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))


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
        ('default_hooks = dict(checkpoint=dict(intervl=2))', r"'intervl': did you mean interval"),
        ("custom_hooks = [dict(type='EMAHok')]", r'did you mean EMAHook'),
        ("val_evaluator = dict(anfile='x')", r"CocoMetric has no argument 'anfile'"),
        ('auto_scale_lr = dict(base_batchsize=16)', r'auto_scale_lr\.base_batchsize.*base_batch_size'),
        ("optim_wrapper = dict(optimizer=dict(type='SGD', momentun=0.9))", r"'momentun': did you mean momentum"),
        (
            "model = dict(backbone=dict(depth='fifty'))",
            r"model\.backbone\.depth \(.*:2\): found 'fifty' \(str\), expected int",
        ),
        ('model = dict(backbone=3)', r'model\.backbone .*found 3 \(int\), expected dict'),
        ("model = 'FasterRCNN'", r"model .*found 'FasterRCNN' \(str\)"),
        ('model = dict(type=3)', r'expected a name as type, found 3'),
        ("train_dataloader = dict(batch_size='six')", r"batch_size .*found 'six' \(str\), expected int"),
        ('train_dataloader = dict(dataset=[1])', r'dataset .*found \[1\] \(list\), expected dict'),
        ("default_hooks = dict(checkpoint=dict(interval='x'))", r'checkpoint\.interval .*expected int'),
        ('custom_hooks = [3]', r'custom_hooks .*found \[3\]'),
        (
            "val_evaluator = ['CocoMetric']\nval_evaluator = dict(_delete_=True, metrics=['x'])",
            r"metrics.* 'x' \(str\)",
        ),
        ('work_dir = 3', r'work_dir .*found 3 \(int\), expected str'),
        (
            "optim_wrapper = dict(constructor='Grouped')",
            r"'Grouped' is not in the registry of optimizer wrapper constr",
        ),
        ('optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mul=0.0))', r'did you mean norm_decay_mult'),
        ('optim_wrapper = dict(clip_grad=dict(maxnorm=3))', r'did you mean max_norm'),
        ('train_cfg = dict(by_epoch=True)', r"EpochBasedTrainLoop has no argument 'by_epoch'"),
        ('train_cfg = dict(_delete_=True, max_epochs=3)', r'expected a `type`, or `by_epoch`'),
        ("train_dataloader = dict(collate_fn=dict(type='pseudo_colate'))", r'did you mean pseudo_collate'),
        ("model_wrapper_cfg = dict(type='MMDDP')", r'registry of model wrappers'),
        ("visualizer = dict(vis_backends=[dict(type='LocalVis')])", r'did you mean LocalVisBackend'),
        (
            "train_dataloader = dict(dataset=dict(pipeline=[dict(type='CheckingTestStep', x=1)]))",
            r"has no argument 'x'",
        ),
        ('model = dict(neck=dict(norm=dict()))', r'expected a dict with a `type` of the norm layers'),
        ('train_dataloder: dict = dict()', r'train_dataloder \(.*child\.py:2\): .*did you mean train_dataloader'),
        ('moedl = dict()', r'did you mean model'),
        ('resum = True', r'did you mean resume'),
        (
            "model = dict(rpn_head=dict(loss_cls=dict(type='L1Los')))",
            r'not in the registry of losses: did you mean L1Loss',
        ),
        ('model = dict(rpn_head=dict(loss_cls=dict(_delete_=True, loss_weight=1.0)))', r'`type` of the losses'),
        ('model = dict(backbone=dict(depth=True))', r'depth .*:2\): found True \(bool\), expected int'),
        ('model = dict(backbone=dict(depth=50.0))', r'depth .*:2\): found 50.0 \(float\), expected int'),
        ('model = dict(neck=dict(in_channels=256))', r'in_channels .*found 256 \(int\), expected Sequence\[int\]'),
        ('model = dict(roi_head=dict(num_classes=6))', r"StandardRoIHead has no argument 'num_classes'"),
        (
            'model = dict(bbox_head=dict(num_classes=6))',
            r"FasterRCNN has no argument 'bbox_head': did you mean roi_head.*\nbbox_head is a part of .*Single",
        ),
        (
            "model = dict(type='SingleStageDetector', bbox_head=dict(type='RetinaHead'))",
            r"SingleStageDetector has no argument 'roi_head': did you mean .*\nroi_head is a part of FasterRCNN",
        ),
        ('model = dict(roi_head=dict(bbox_head=dict(num_classes=0)))', r'num_classes .*:2\): found 0 .*at least 1'),
        ('train_dataloader = dict(batch_size=0)', r'batch_size .*:2\): found 0 \(int\), expected at least 1'),
        ('train_dataloader = dict(num_workers=-1)', r'num_workers .*found -1 \(int\), expected at least 0'),
        ('auto_scale_lr = dict(base_batch_size=0)', r'base_batch_size .*expected at least 1'),
        ('optim_wrapper = dict(optimizer=dict(lr=-0.1))', r'optimizer\.lr .*expected at least 0'),
        ("train_dataloader = dict(sampler='DefaultSampler')", r'sampler .*:2\): found .*`type` of the data samplers'),
        ('train_dataloader = dict(sampler=dict(shufle=True))', r"'shufle': did you mean shuffle"),
        ('train_dataloader = dict(_delete_=True, batch_size=2)', r'train_dataloader .*:2\): has no dataset'),
        (
            'train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_emty_gt=True)))',
            r'filter_cfg\.filter_emty_gt .*:2\): unknown key: did you mean filter_empty_gt',
        ),
        (
            "train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt='no')))",
            r"filter_empty_gt .*:2\): found 'no' \(str\), expected bool",
        ),
        ("train_dataloader = dict(dataset=dict(data_prefix='x'))", r"data_prefix .*found 'x' \(str\), expected a dict"),
        (
            'train_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True)))',
            r'data_prefix .*:2\): has no img: it takes img',
        ),
        (
            "train_dataloader = dict(dataset=dict(type='RepeatDataset', times=2))",
            r"RepeatDataset has no argument 'ann_file'.*\nThe base sets it.*_delete_=True",
        ),
        ("optim_wrapper = dict(optimizer='SGD')", r'optimizer .*:2\): found .*expected'),
        ('default_hooks = dict(checkpoint=3)', r'default_hooks\.checkpoint .*:2\): found 3 .*`type` of the hooks'),
        ("custom_hooks = [dict(type='FPN')]", r"'FPN' .*it is a neck, and stands where a hook belongs"),
        ("param_scheduler = [dict(type='MultiStepLR')]", r'param_scheduler\.0 .*MultiStepLR needs milestones'),
        ("param_scheduler = [dict(type='MultiStepLR', milestones=8)]", r'milestones .*:2\): found 8 \(int\)'),
        (
            "default_scope = 'frdet_nowhere'",
            r"default_scope .*:2\): found 'frdet_nowhere', which is no installed package",
        ),
        ("log_level = 'INFOO'", r"log_level .*:2\): found 'INFOO', expected one of CRITICAL"),
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
        "custom_hooks = [dict(type='EMAHook', priority=49)]\ndefault_hooks = dict(checkpoint=None)",
        "train_dataloader = dict(collate_fn=dict(type='pseudo_collate'))",
        "model_wrapper_cfg = dict(type='MMDistributedDataParallel', find_unused_parameters=True)",
        'model_wrapper_cfg = dict(find_unused_parameters=True)',
        'env_cfg = dict(dist_cfg=dict(port=29500))',
        "optim_wrapper = dict(_delete_=True, optimizer=dict(type='SGD', lr=0.1))",
        "optim_wrapper = dict(_delete_=True, constructor='MyGan', generator=dict(lr=1), judge=dict(lr=2))",
        "optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic')",
        'log_processor = dict(_delete_=True, window_size=20)',
        "val_evaluator = dict(_delete_=True, metrics=[dict(type='CocoMetric', ann_file='x')])",
        "model = dict(backbone=dict(init_cfg=[dict(type='Kaiming', layer='Conv2d')]))",
        "model = dict(backbone=dict(_delete_=True, type='CheckingTestBody', heads=dict(width='a', cfg=dict(x=1))))",
        "model = dict(neck=dict(_delete_=True, type='frdet_checking_zoo.Neck', norm_cfg=dict(type='LN2d')))",
        "train_dataloader = dict(dataset=dict(pipeline=[dict(type='CheckingTestStep')]))",
        "mode = 'fast'\nmodels = []\neval_cfg = {}\ntrain_loader = {}\n_models = {}\ntta_model = {}",
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


def test_mistake_of_an_override_is_not_laid_to_a_file(tmp_path):
    cfg = load_config(MAIN, ['model.backbone.type=ResNt'])
    with pytest.raises(ConfigError, match=r"model\.backbone \(override\): 'ResNt' is not in"):
        check_config(cfg)


def test_paramwise_cfg_of_another_constructor_is_its_own(tmp_path):
    @OPTIM_WRAPPER_CONSTRUCTORS.register_module(name='CheckingTestConstructor', force=True)
    class Constructor:
        pass

    check_config(
        child(
            tmp_path, "optim_wrapper = dict(constructor='CheckingTestConstructor', paramwise_cfg=dict(decay_rate=0.9))"
        )
    )


@pytest.mark.long
def test_check_takes_under_two_seconds():
    """Without what it takes to import PyTorch and the packages around it."""
    code = (
        'import time, torchvision, mmengine.runner, mmengine.visualization, torch.utils.tensorboard, pycocotools.coco\n'
        'from frdet.config import check_config, load_config\n'
        'begin = time.process_time()\n'
        f'check_config(load_config({str(MAIN)!r}))\n'
        'print(time.process_time() - begin)'
    )
    done = subprocess.run([warm.python(), '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 2


@BBOX_HEADS.register_module(name='CheckingTestBoxHead', force=True)
class _BoxHead(nn.Module):
    def __init__(self, *, num_classes: int | None):
        super().__init__()


@DENSE_HEADS.register_module(name='CheckingTestDenseHead', force=True)
class _DenseHead(nn.Module):
    parts = dict(assigner=ASSIGNERS)

    def __init__(self, *, assigner: dict, my_sampler: dict | None = None):
        super().__init__()


@DETECTORS.register_module(name='CheckingTestDetector', force=True)
class _Detector(nn.Module):
    parts = dict(my_dense_head=DENSE_HEADS, bbox_heads=BBOX_HEADS)

    def __init__(self, *, my_dense_head: dict, bbox_heads: list[dict] | None = None):
        super().__init__()


@DETECTORS.register_module(name='CheckingTestWrongParts', force=True)
class _WrongParts(nn.Module):
    parts = dict(head='DENSE_HEADS')

    def __init__(self, *, head: dict):
        super().__init__()


ASSIGNER = "assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, match_low_quality=True)"
OWN = f"my_dense_head=dict(type='CheckingTestDenseHead', {ASSIGNER}{{}})"
BOX_HEAD = "dict(type='CheckingTestBoxHead', num_classes={})"


def own_detector(text, kind='CheckingTestDetector'):
    return f"model = dict(_delete_=True, type='{kind}', {text})"


@pytest.mark.parametrize(
    'text',
    [
        OWN.format(''),
        f'{OWN.format("")}, bbox_heads=[{BOX_HEAD.format(3)}, {BOX_HEAD.format(None)}]',
        OWN.format(", my_sampler=dict(type='L1Loss')"),  # not declared: a component of any kind may stand
    ],
)
def test_parts_under_keys_of_a_users_own(tmp_path, text):
    check_config(child(tmp_path, own_detector(text)))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            f"{OWN.format('')},\n bbox_heads=[{BOX_HEAD.format(3)},\n dict(type='RPNHead')]",
            r"model\.bbox_heads\.1 \(.*child\.py:4\): 'RPNHead' .*it is a dense head, and stands where a bbox head",
        ),
        (
            f'{OWN.format("")}, bbox_heads=[{BOX_HEAD.format(3)}, {BOX_HEAD.format(0)}]',
            r'model\.bbox_heads\.1\.num_classes .*found 0 \(int\), expected at least 1',
        ),
        (f"{OWN.format('')}, bbox_heads=['FCBBoxHead']", r"bbox_heads .*found \['FCBBoxHead'\] .*list\[dict\]"),
        (
            "my_dense_head=dict(type='CheckingTestDenseHead', assigner=dict(type='RandomSampler'))",
            r'model\.my_dense_head\.assigner .*it is a sampler, and stands where an assigner',
        ),
        (
            f'{OWN.format("")}'.replace('CheckingTestDenseHead', 'FPN'),
            r'my_dense_head .*it is a neck, and stands where',
        ),
    ],
)
def test_a_part_of_the_wrong_kind(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        check_config(child(tmp_path, own_detector(text)))


def test_parts_that_name_no_registry(tmp_path):
    message = (
        r"model \(.*child\.py:2\): _WrongParts\.parts in .*test_checking\.py has head='DENSE_HEADS': expected the "
        'registry of each part'
    )
    with pytest.raises(ConfigError, match=message):
        check_config(child(tmp_path, own_detector('head=dict()', kind='CheckingTestWrongParts')))
