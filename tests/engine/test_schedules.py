"""Schedules that do not fit the run are told before its first step."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, ProfilerHook
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from frdet.config import check_config
from frdet.config.overrides import apply_overrides, parse_overrides
from frdet.engine.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from frdet.engine.schedules import check_counting, check_one_cycle, misfits, resolve_shares
from frdet.errors import ConfigError
from tests.engine import toy

WARMUP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5)
COSINE = dict(type='CosineAnnealingLR', eta_min=0.0)


def steps(*milestones, **changes):
    return dict(type='MultiStepLR', milestones=list(milestones), **changes)


def run(*schedules, epochs=12, length=10, iterations=None, hooks=(), log_by_epoch=False, listed=True):
    """As much of a Runner as is looked at: of ``epochs`` of ``length`` iterations, or of ``iterations``."""
    total = epochs * length if iterations is None else iterations
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5, momentum=0.5)
    built = []
    for one in schedules:
        end = epochs if one.get('by_epoch', True) else total  # MMEngine's default
        default = dict(optimizer=optimizer, epoch_length=length)
        built.append(PARAM_SCHEDULERS.build({'end': end, **one}, default_args=default))
    return SimpleNamespace(
        train_loop=object.__new__(EpochBasedTrainLoop if iterations is None else IterBasedTrainLoop),
        max_epochs=epochs if iterations is None else 1,
        max_iters=total,
        param_schedulers=built,
        hooks=list(hooks),
        log_processor=SimpleNamespace(by_epoch=log_by_epoch),
        cfg=dict(param_scheduler=list(schedules) if listed else schedules[0]),
    )


FITTING = {
    'constant': run(),
    'warm-up alone': run(WARMUP),
    '1x': run(WARMUP, steps(8, 11, end=12)),
    'without end': run(WARMUP, steps(8, 11)),
    'one epoch more would be an end': run(steps(8, 11, end=13)),
    'iterations': run({**WARMUP, 'end': 100}, steps(60, 80, by_epoch=False), iterations=100),
    'warm-up as long as the run': run({**WARMUP, 'end': 120}),
    'cosine after warm-up': run(WARMUP, {**COSINE, 'by_epoch': False, 'begin': 5}),
    'cosine, then constant on purpose': run(
        {**COSINE, 'T_max': 6, 'end': 6}, dict(type='ConstantLR', factor=0.5, begin=6), steps(10)
    ),
    'converted': run(steps(8, 11, convert_to_iter_based=True)),
    'step': run(dict(type='StepLR', step_size=5)),
    'figures': run(dict(type='ReduceOnPlateauLR')),
    'momentum': run(steps(8), dict(type='LinearMomentum', start_factor=0.5, by_epoch=False, end=20)),
}


@pytest.mark.parametrize('name', FITTING)
def test_schedules_that_fit(name):
    check_counting(FITTING[name])
    check_one_cycle(FITTING[name])
    assert misfits(FITTING[name]) == []


MISFITS = {
    'milestones at and past the end': (
        run(steps(5, 6), epochs=5),
        ['param_scheduler.0 (MultiStepLR) never reaches epoch 5, 6: the run ends after epoch 5'],
    ),
    'some of them': (
        run(WARMUP, steps(3, 6), epochs=4),
        ['param_scheduler.1 (MultiStepLR) never reaches epoch 6: the run ends after epoch 4'],
    ),
    'of iterations in epochs': (
        run(steps(60000, by_epoch=False), epochs=4),
        ['param_scheduler.0 (MultiStepLR) never reaches iteration 60000: the run ends after iteration 40'],
    ),
    'counted from begin': (
        run(steps(8, begin=4), epochs=12),
        ['param_scheduler.0 (MultiStepLR) never reaches epoch 12: the run ends after epoch 12'],
    ),
    'cut by their own end': (
        run(steps(8, 20, end=12), epochs=24),
        [
            'param_scheduler.0 (MultiStepLR) never reaches epoch 20, since its end is 12: the run ends after epoch 24',
            'param_scheduler.0 (MultiStepLR) changes nothing after epoch 12: the run ends after epoch 24',
        ],
    ),
    'converted': (
        run(steps(8, convert_to_iter_based=True), epochs=4),
        ['param_scheduler.0 (MultiStepLR) never reaches iteration 80: the run ends after iteration 40'],
    ),
    'warm-up': (
        run({**WARMUP, 'end': 1001}, iterations=10),
        ['param_scheduler.0 (LinearLR) needs until iteration 1001: the run ends after iteration 10'],
    ),
    'constant warm-up, a single one': (
        run(dict(type='ConstantLR', factor=0.1, by_epoch=False, end=500), listed=False),
        ['param_scheduler (ConstantLR) needs until iteration 500: the run ends after iteration 120'],
    ),
    'step': (
        run(dict(type='StepLR', step_size=20)),
        ['param_scheduler.0 (StepLR) never reaches epoch 20: the run ends after epoch 12'],
    ),
    'begin': (
        run(steps(1, begin=12, end=14)),
        ['param_scheduler.0 (MultiStepLR) begins after epoch 12: the run ends after epoch 12'],
    ),
    'cosine longer than the run': (
        run({**COSINE, 'T_max': 24}),
        ['param_scheduler.0 (CosineAnnealingLR) needs until epoch 24: the run ends after epoch 12'],
    ),
    'cosine shorter than the run': (
        run({**COSINE, 'T_max': 12}, epochs=24),
        ['param_scheduler.0 (CosineAnnealingLR) changes nothing after epoch 12: the run ends after epoch 24'],
    ),
    'run made longer': (
        run(WARMUP, steps(5, 6, end=7), epochs=30),
        ['param_scheduler.1 (MultiStepLR) changes nothing after epoch 6: the run ends after epoch 30'],
    ),
    'run made longer, no end': (
        run(WARMUP, steps(7), epochs=30),
        ['param_scheduler.1 (MultiStepLR) changes nothing after epoch 7: the run ends after epoch 30'],
    ),
    'run made a little longer': (
        run(steps(8, 11, end=12), epochs=20),
        ['param_scheduler.0 (MultiStepLR) changes nothing after epoch 12: the run ends after epoch 20'],
    ),
    'momentum': (
        run(steps(8), dict(type='CosineAnnealingMomentum', T_max=6, end=6, eta_min=0.1)),
        ['param_scheduler.1 (CosineAnnealingMomentum) changes nothing after epoch 6: the run ends after epoch 12'],
    ),
    'restarts': (
        run(dict(type='CosineRestartLR', periods=[2, 4], restart_weights=[1, 1], eta_min=0.0)),
        ['param_scheduler.0 (CosineRestartLR) changes nothing after epoch 6: the run ends after epoch 12'],
    ),
}


@pytest.mark.parametrize('name', MISFITS)
def test_schedules_that_do_not_fit(name):
    one, expected = MISFITS[name]
    assert misfits(one) == expected


@pytest.mark.parametrize(
    'path', sorted(toy.ROOT.glob('configs/[!_s]*/*.py')), ids=lambda path: f'{path.parent.name}/{path.stem}'
)
def test_the_shipped_configs_fit(path):
    cfg = Config.fromfile(path)
    by_iteration = cfg.train_cfg.type == 'IterBasedTrainLoop'
    length = dict(iterations=cfg.train_cfg.max_iters) if by_iteration else dict(epochs=cfg.train_cfg.max_epochs)
    hook = CheckpointHook(by_epoch=cfg.default_hooks.checkpoint.get('by_epoch', True))
    one = run(*cfg.param_scheduler, length=826, hooks=[hook], log_by_epoch=cfg.log_processor.by_epoch, **length)
    check_counting(one)
    assert misfits(one) == []


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        (dict(schedules=[WARMUP, steps(1)]), ['param_scheduler.1']),
        (dict(schedules=[steps(1)], listed=False), ['param_scheduler']),
        (dict(hooks=[CheckpointHook()]), ['default_hooks.checkpoint']),
        (dict(hooks=[ProfilerHook(by_epoch=True)]), ['ProfilerHook']),
        (dict(log_by_epoch=True), ['log_processor']),
        (dict(schedules=[steps(1)], hooks=[CheckpointHook()]), ['param_scheduler.0', 'default_hooks.checkpoint']),
    ],
)
def test_epochs_under_a_loop_by_iterations(changes, named):
    schedules = changes.pop('schedules', [])
    with pytest.raises(ConfigError, match='IterBasedTrainLoop counts iterations .max_iters=12.') as info:
        check_counting(run(*schedules, iterations=12, **changes))
    found = ', '.join(f'{name}.by_epoch=True' for name in named)
    assert f'no epoch ends there for {found}: set these to False' in str(info.value)
    check_counting(run(*schedules, **changes))  # a loop by epochs


def test_what_may_count_epochs_under_a_loop_by_iterations():
    """A schedule that follows figures counts validations; converted milestones count iterations."""
    check_counting(run(dict(type='ReduceOnPlateauLR'), iterations=12))
    check_counting(run(steps(1, convert_to_iter_based=True), iterations=12, hooks=[CheckpointHook(by_epoch=False)]))


@pytest.mark.parametrize(('total', 'end', 'fits'), [(120, 120, True), (119, 121, False), (119, 119, True)])
def test_one_cycle_is_as_long_as_the_run(total, end, fits):
    """After iteration 120 MMEngine would ask for step 120 of ``total_steps``, and raise if these are fewer."""
    one = run(dict(type='OneCycleLR', eta_max=0.5, by_epoch=False, total_steps=total, end=end))
    if fits:
        check_one_cycle(one)
    else:
        with pytest.raises(ConfigError, match='param_scheduler.0.total_steps=120, or param_scheduler.0.end=119'):
            check_one_cycle(one)
    (scheduler,) = one.param_schedulers
    for _ in range(119):
        scheduler.step()
    if fits:
        scheduler.step()
    else:
        with pytest.raises(ValueError, match='Tried to step 121 times'):
            scheduler.step()


@pytest.mark.parametrize(
    ('epochs', 'milestones'),
    # 0.75 and 0.92 of the epochs: 15 and 18.4; 7.5 and 9.2; 3.75 and 4.6; 2.25 and 2.76; 1.5 and 1.84. None is the end.
    [(20, [15, 18]), (10, [8, 9]), (5, [4]), (3, [2]), (2, [1]), (1, [])],
)
def test_milestones_as_shares(epochs, milestones):
    entry = steps(0.75, 0.92, end=1.0)
    assert resolve_shares([entry], epochs, 100 * epochs) == [steps(*milestones, end=max(epochs, 2))]
    assert entry == steps(0.75, 0.92, end=1.0)
    assert misfits(run(steps(*milestones, end=max(epochs, 2)), epochs=epochs)) == []


@pytest.mark.parametrize(
    ('entry', 'resolved'),
    [
        (dict(begin=0, end=0.05), dict(begin=0, end=30)),  # of 600 iterations
        (dict(begin=0.05, end=1.0), dict(begin=30, end=600)),  # goes on where the warm-up ends
        (dict(begin=0.0, end=1), dict(begin=0, end=1)),  # an integer is a number of iterations
        (dict(end=0.001), dict(end=2)),  # 0.6; the value at end - 1 must be after begin
        (dict(begin=0.5, end=0.5), dict(begin=300, end=302)),
        (dict(milestones=[400, 0.5]), dict(milestones=[300, 400])),
        (dict(milestones=[300, 300, 0.5]), dict(milestones=[300, 300])),  # a factor twice, on purpose
        (dict(gamma=0.5, start_factor=0.1), dict(gamma=0.5, start_factor=0.1)),  # no times
    ],
    ids=str,
)
def test_shares_of_iterations(entry, resolved):
    entry, resolved = (dict(type='AnySchedule', by_epoch=False, **one) for one in (entry, resolved))
    assert resolve_shares(entry, 6, 600) == resolved
    assert resolve_shares(dict(generator=[entry]), 6, 600) == dict(generator=[resolved])  # of several optimisers


@pytest.mark.parametrize(
    ('entry', 'named'),
    [
        (steps(0.5, 8.0), 'param_scheduler.0.milestones.1 is 8.0'),
        (steps(1, end=12.0), 'param_scheduler.0.end is 12.0'),
        (steps(1, begin=-0.5), 'param_scheduler.0.begin is -0.5'),
        (steps(float('nan')), 'param_scheduler.0.milestones.0 is nan'),
    ],
)
def test_a_float_that_is_no_share(entry, named):
    with pytest.raises(ConfigError, match=named + ': expected a whole number of epochs or iterations, or a share'):
        resolve_shares([entry], 12, 120)


def test_the_check_of_a_config_lets_shares_pass():
    cfg = Config(dict(param_scheduler=[{**WARMUP, 'end': 0.05}, steps(0.75, 11, begin=0.0, end=1.0)]))
    check_config(cfg)
    apply_overrides(cfg, parse_overrides(['param_scheduler.1.milestones=0.5,0.75', 'param_scheduler.0.end=0.1']))
    assert cfg.param_scheduler[1].milestones == [0.5, 0.75] and cfg.param_scheduler[0].end == 0.1
    cfg.param_scheduler[1].milestones = ['half']
    with pytest.raises(ConfigError, match=r"milestones.*\['half'\]"):
        check_config(cfg)
