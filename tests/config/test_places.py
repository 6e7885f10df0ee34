import inspect

import pytest
from mmengine.runner import Runner

from frdet import registry
from frdet.config.places import RUNNER_KEYS, dataloader_keys, declared_at, find_component, known_keys, place_registry
from frdet.errors import ConfigError


def test_keys_are_those_of_the_runner():
    """MMEngine's Runner.from_cfg hands on what it names in its signature, beside what it reads from the config."""
    assert set(inspect.signature(Runner).parameters) - {'cfg'} <= RUNNER_KEYS


@pytest.mark.parametrize(
    ('place', 'expected'),
    [
        ('model', registry.DETECTORS),
        ('model.rpn_head.sampler', registry.SAMPLERS),
        ('train_dataloader.sampler', registry.DATA_SAMPLERS),
        ('train_dataloader.dataset.datasets.0.pipeline.3', registry.TRANSFORMS),
        ('model.roi_head.loss_cls', registry.LOSSES),
        ('model.roi_head.loss_mask', registry.LOSSES),
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
def test_kind_of_a_place(place, expected):
    assert place_registry(place) is expected


def test_component_where_any_may_stand():
    assert find_component('L1Loss', 'model.backbone.my_part') is registry.LOSSES.get('L1Loss')
    assert find_component('MMDistributedDataParallel', 'model.my_part').__name__ == 'MMDistributedDataParallel'
    assert find_component('NoSuchThing', 'model.backbone.my_part') is None
    with pytest.raises(ConfigError, match='it is a loss'):
        find_component('L1Loss', 'model.backbone')


def test_known_keys():
    assert {'batch_size', 'dataset', 'collate_fn', 'num_batch_per_epoch'} <= dataloader_keys()
    assert {'seed', 'deterministic', 'diff_rank_seed'} == known_keys({}, 'randomness')
    assert {'type', 'loss_weight'} <= known_keys({'type': 'L1Loss'}, 'model.roi_head.loss_bbox')
    assert 'constructor' in known_keys({}, 'optim_wrapper')  # without a type it is an OptimWrapper
    assert known_keys({'a': 1}, 'train_dataloader.dataset.metainfo') == set()


def test_declared_types():
    assert declared_at({}, 'batch_size', 'train_dataloader').annotation == int | None
    assert declared_at({}, 'resume', '').annotation is bool
    assert declared_at({}, 'seed', 'randomness').annotation == int | None
    assert declared_at({'type': 'EMAHook'}, 'priority', 'custom_hooks.0').annotation == int | str
    assert declared_at({'type': 'L1Loss'}, 'loss_weight', 'model.roi_head.loss_bbox').annotation is float
