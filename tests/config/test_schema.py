import inspect

import pytest
from mmengine.runner import Runner
from torch import nn

from frdet import registry
from frdet.config.schema import (
    RUNNER_KEYS,
    declared_at,
    find_component,
    keys_at,
    least,
    registry_at,
    registry_of_part,
)
from frdet.errors import ConfigError
from frdet.models.detectors import FasterRCNN
from frdet.models.necks import FPN
from frdet.models.roi_heads import StandardRoIHead


def test_keys_are_those_of_the_runner():
    """MMEngine's Runner.from_cfg hands on what it names in its signature, beside what it reads from the config."""
    assert set(inspect.signature(Runner).parameters) - {'cfg'} <= RUNNER_KEYS


@pytest.mark.parametrize(
    ('key_path', 'expected'),
    [
        ('model', registry.DETECTORS),
        ('train_dataloader.sampler', registry.DATA_SAMPLERS),
        ('train_dataloader.dataset.datasets.0.pipeline.3', registry.TRANSFORMS),
        ('model.backbone.init_cfg.0', registry.WEIGHT_INITIALIZERS),
        ('default_hooks.anything', registry.HOOKS),
        ('custom_hooks.2', registry.HOOKS),
        ('param_scheduler.0', registry.PARAM_SCHEDULERS),
        ('optim_wrapper.optimizer', registry.OPTIMIZERS),
        ('visualizer.vis_backends.0', registry.VISBACKENDS),
        ('val_evaluator.metrics.1', registry.METRICS),
        ('train_cfg', registry.LOOPS),
        ('model.train_cfg', None),
        ('model.backbone.my_part', None),
        ('default_hooks.checkpoint.part', None),
    ],
)
def test_kind_at_a_key_path(key_path, expected):
    assert registry_at(key_path) is expected


@pytest.mark.parametrize(
    ('component', 'part', 'expected'),
    [
        (FasterRCNN, 'backbone', registry.BACKBONES),  # of its base class
        (FasterRCNN, 'rpn_head', registry.DENSE_HEADS),
        (StandardRoIHead, 'sampler', registry.SAMPLERS),
        (StandardRoIHead, 'loss_cls', registry.LOSSES),
        (StandardRoIHead, 'mask_head', registry.MASK_HEADS),
        (StandardRoIHead, 'keypoint_head', None),
        (nn.Linear, 'sampler', None),
        (None, 'sampler', None),
        (FPN, 'init_cfg', registry.WEIGHT_INITIALIZERS),
    ],
)
def test_kind_of_a_part(component, part, expected):
    assert registry_of_part(component, part, f'model.some.{part}') is expected


@pytest.mark.parametrize(
    ('key_path', 'expected'),
    [
        ('model.roi_head.bbox_head.num_classes', 1),
        ('model.heads.1.num_classes', 1),
        ('model.backbone.num_classes', None),  # timm's is 0 where it classifies nothing
        ('train_dataloader.batch_size', 1),
        ('train_dataloader.dataset.num_classes', None),
    ],
)
def test_least(key_path, expected):
    assert least(key_path) == expected


def test_component_where_any_may_stand():
    assert find_component('L1Loss', None) is registry.LOSSES.get('L1Loss')
    assert find_component('MMDistributedDataParallel', None).__name__ == 'MMDistributedDataParallel'
    assert find_component('NoSuchThing', None) is None
    with pytest.raises(ConfigError, match='it is a loss'):
        find_component('L1Loss', registry.BACKBONES)


def test_keys_at_a_key_path():
    assert {'batch_size', 'dataset', 'collate_fn', 'num_batch_per_epoch'} <= set(keys_at({}, 'train_dataloader'))
    assert {'seed', 'deterministic', 'diff_rank_seed'} == set(keys_at({}, 'randomness'))
    assert {'type', 'loss_weight'} <= set(keys_at({'type': 'L1Loss'}, 'model.roi_head.loss_bbox'))
    assert 'constructor' in keys_at({}, 'optim_wrapper')  # without a type it is an OptimWrapper
    assert keys_at({'a': 1}, 'train_dataloader.dataset.metainfo') == {}


def test_declared_types():
    assert declared_at({}, 'batch_size', 'train_dataloader').annotation == int | None
    assert declared_at({}, 'resume', '').annotation is bool
    assert declared_at({}, 'seed', 'randomness').annotation == int | None
    assert declared_at({'type': 'EMAHook'}, 'priority', 'custom_hooks.0').annotation == int | str
    assert declared_at({'type': 'L1Loss'}, 'loss_weight', 'model.roi_head.loss_bbox').annotation is float
