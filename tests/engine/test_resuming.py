"""A resumed run has the config's options and the checkpoint's state; a difference is told, or refused."""

import copy
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import MessageHub
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from frdet.config.overrides import parse_overrides
from frdet.engine import GroupedOptimWrapperConstructor
from frdet.engine.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from frdet.engine.resuming import position_of, resume_state, setup_of
from frdet.engine.schedules import Position, settings_of
from frdet.errors import CheckpointError, ConfigError

LENGTH, EPOCHS = 4, 6  # iterations in an epoch, epochs
SGD = dict(type='SGD', lr=0.5, momentum=0.75, weight_decay=0.25)
ADAM = dict(type='AdamW', lr=0.5, weight_decay=0.25, betas=(0.5, 0.75))
WARMUP = dict(type='LinearLR', start_factor=0.125, by_epoch=False, begin=0, end=6)
STEPS = dict(type='MultiStepLR', by_epoch=True, begin=0, end=EPOCHS, milestones=[1], gamma=0.1)


class Run:
    """A model of a few parameters, its optimiser and schedules, stepped as MMEngine's Runner and hook step them."""

    def __init__(self, *schedules, optimizer=SGD, paramwise=None, length=LENGTH, frozen=(), scale=1.0):
        self.model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
        for index in frozen:
            self.model[index].requires_grad_(False)
        constructor = GroupedOptimWrapperConstructor(dict(type='OptimWrapper', optimizer=dict(optimizer)), paramwise)
        self.wrapper, self.length = constructor(self.model), length
        for group in self.wrapper.optimizer.param_groups:
            group['lr'] *= scale  # as the Runner scales it to the images in a step
        self.setup = setup_of(self.wrapper, self.model)
        self.schedulers = [
            PARAM_SCHEDULERS.build(dict(one), default_args=dict(optimizer=self.wrapper, epoch_length=length))
            for one in schedules
        ]
        pairs = zip(self.schedulers, schedules, strict=True)
        self.setup.schedules = [
            settings_of(built, one, length if one.get('convert_to_iter_based') else None) for built, one in pairs
        ]
        self.iteration = 0
        self.values = []  # before each iteration: of each group

    def train(self, iterations):
        for _ in range(iterations):
            keys = ('lr', 'momentum', 'betas', 'weight_decay')
            self.values.append([{key: group.get(key) for key in keys} for group in self.wrapper.optimizer.param_groups])
            self.wrapper.update_params(self.model(torch.ones(3, 2)).square().sum() * 1e-3)
            self.iteration += 1
            for scheduler in self.schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
            for scheduler in self.schedulers if self.iteration % self.length == 0 else ():
                if scheduler.by_epoch:
                    scheduler.step()
        return self

    def checkpoint(self, *, old=False):
        """What is saved of it; ``old``: as before the setup was saved, too."""
        meta = {} if old else {'setup': asdict(self.setup)}
        states = [one.state_dict() for one in self.schedulers]
        content = dict(meta=meta, optimizer=self.wrapper.state_dict(), param_schedulers=states)
        return copy.deepcopy(content)

    def resume(self, checkpoint, iteration, *, epochs=None, progress=None):
        epochs = iteration // self.length if epochs is None else epochs
        position = Position(epochs, iteration, iteration if progress is None else progress, self.length)
        self.iteration = position.progress
        return resume_state(self.wrapper, self.schedulers, checkpoint, self.setup, position, source='a.pth')


SCHEDULES = {
    'other milestones': ([WARMUP, STEPS], [WARMUP, {**STEPS, 'milestones': [4]}]),
    'other gamma': ([WARMUP, STEPS], [WARMUP, {**STEPS, 'gamma': 0.5}]),
    'other end': ([WARMUP, {**STEPS, 'end': 2}], [WARMUP, {**STEPS, 'milestones': [1, 3]}]),
    'longer warm-up': ([WARMUP, STEPS], [{**WARMUP, 'end': 15}, STEPS]),
    'other begin': ([WARMUP, STEPS], [WARMUP, {**STEPS, 'begin': 1}]),
    'no schedule': ([WARMUP, STEPS], []),
    'one more': ([STEPS], [WARMUP, STEPS]),
    'one fewer': ([WARMUP, STEPS], [STEPS]),
    'a first one': ([], [WARMUP, STEPS]),
    'epochs to iterations': ([STEPS], [dict(type='MultiStepLR', by_epoch=False, milestones=[3, 9], gamma=0.1)]),
    'converted': ([STEPS], [{**STEPS, 'milestones': [2], 'convert_to_iter_based': True}]),
    'cosine': (
        [WARMUP, STEPS],
        [WARMUP, dict(type='CosineAnnealingLR', by_epoch=False, begin=5, end=24, T_max=19, eta_min=0.01)],
    ),
    'longer cosine': (
        [dict(type='CosineAnnealingLR', by_epoch=True, T_max=3, end=3, eta_min=0.01)],
        [dict(type='CosineAnnealingLR', by_epoch=True, T_max=6, end=6, eta_min=0.01)],
    ),
    'cosine, converted': (
        [dict(type='CosineAnnealingLR', T_max=3, convert_to_iter_based=True)],
        [WARMUP, dict(type='CosineAnnealingLR', T_max=6, eta_min_ratio=0.1, convert_to_iter_based=True)],
    ),
    'step': ([STEPS], [dict(type='StepLR', step_size=2, gamma=0.5)]),
    'exponential': ([STEPS], [dict(type='ExponentialLR', gamma=0.9, by_epoch=False), STEPS]),
    'poly': ([STEPS], [dict(type='PolyLR', power=2, eta_min=0.1, by_epoch=False, end=24)]),
    'linear decay': ([WARMUP], [dict(type='LinearLR', start_factor=1.0, end_factor=0.1, by_epoch=True, end=6)]),
    'constant': ([WARMUP], [dict(type='ConstantLR', factor=0.5, by_epoch=False, end=7), STEPS]),
    'restarts': (
        [STEPS],
        [dict(type='CosineRestartLR', periods=[3, 3], restart_weights=[1, 0.5], eta_min=0.1)],
    ),
    'one cycle': ([WARMUP], [dict(type='OneCycleLR', eta_max=0.5, total_steps=24, by_epoch=False)]),
    'no longer one cycle': ([dict(type='OneCycleLR', eta_max=0.5, total_steps=24, by_epoch=False)], [WARMUP]),
    'momentum': (
        [STEPS],
        [STEPS, dict(type='LinearMomentum', start_factor=0.5, by_epoch=False, end=13)],
    ),
    'other momentum': (
        [dict(type='MultiStepMomentum', milestones=[1], gamma=0.5), STEPS],
        [dict(type='MultiStepMomentum', milestones=[3], gamma=0.5), STEPS],
    ),
    'no momentum': ([dict(type='MultiStepMomentum', milestones=[1], gamma=0.5)], []),
}


@pytest.mark.parametrize(('optimizer', 'old'), [(SGD, False), (ADAM, True)], ids=['SGD', 'AdamW, older checkpoint'])
@pytest.mark.parametrize('name', SCHEDULES)
def test_values_are_those_of_a_run_from_the_start(name, optimizer, old):
    """At every stop: learning rate and momentum of each group, at each iteration that follows."""
    before, after = SCHEDULES[name]
    options = dict(optimizer=optimizer, paramwise=dict(bias_lr_mult=2.0, norm_decay_mult=0.0))
    whole = Run(*after, **options).train(EPOCHS * LENGTH)
    for stop in (1, 4, 7, 8, 16):
        first = Run(*before, **options).train(stop)
        resumed = Run(*after, **options)
        # A one-cycle schedule of an older checkpoint could not be read.
        warning = resumed.resume(first.checkpoint(old=old and name != 'no longer one cycle'), stop)
        assert 'param_scheduler' in warning
        assert resumed.train(EPOCHS * LENGTH - stop).values == whole.values[stop:]


@settings(deadline=None, max_examples=25)
@given(
    old=st.lists(st.integers(0, EPOCHS), unique=True),
    new=st.lists(st.integers(0, EPOCHS), unique=True),
    stop=st.integers(1, 3 * LENGTH),
    lrs=st.tuples(st.sampled_from([0.5, 0.25]), st.sampled_from([0.5, 0.25])),
)
def test_milestones_in_closed_form(old, new, stop, lrs):
    """The rate is that of the warm-up, a tenth for each milestone of the config that is behind."""
    runs = [
        Run(WARMUP, {**STEPS, 'milestones': sorted(milestones)}, optimizer={**SGD, 'lr': lr})
        for milestones, lr in zip((old, new), lrs, strict=True)
    ]
    warning = runs[1].resume(runs[0].train(stop).checkpoint(), stop)
    assert (warning is None) == (sorted(old) == sorted(new) and lrs[0] == lrs[1])
    runs[1].train(EPOCHS * LENGTH - stop)
    for iteration, (group,) in enumerate(runs[1].values, stop):
        warm = 0.125 + 0.875 * min(iteration / 5, 1)
        passed = sum(0 < milestone <= iteration // LENGTH for milestone in new)  # MMEngine never steps at 0
        assert group['lr'] == pytest.approx(lrs[1] * warm * 0.1 ** (passed + (0 in new)))


def test_epochs_of_another_length():
    """Four epochs of 4 iterations, then epochs of 2. What counts epochs follows them, the warm-up its iterations.

    The warm-up of 31 iterations is at 16 of 30 there, the milestones 3 and 5 of epochs are both converted.
    """
    warmup = {**WARMUP, 'end': 31}
    both = [warmup, {**STEPS, 'milestones': [3, 5], 'convert_to_iter_based': True}]
    resumed = Run(*both, length=2)
    assert resumed.resume(Run(*both).train(16).checkpoint(), 16, epochs=4, progress=8) is None
    resumed.train(4)
    found = [group['lr'] for (group,) in resumed.values]
    assert found == pytest.approx([0.5 * (0.125 + 0.875 * (16 + i) / 30) * (0.1 if i < 2 else 0.01) for i in range(4)])


@pytest.mark.parametrize('old', [False, True])
@pytest.mark.parametrize('optimizer', [SGD, ADAM], ids=['SGD', 'AdamW'])
def test_what_did_not_change_is_taken_to_the_last_bit(optimizer, old):
    schedules = [WARMUP, STEPS, dict(type='LinearMomentum', start_factor=0.5, by_epoch=False, end=13)]
    first = Run(*schedules, optimizer=optimizer).train(7)
    checkpoint, resumed = first.checkpoint(old=old), Run(*schedules, optimizer=optimizer)
    checkpoint['optimizer']['param_groups'][0]['lr'] *= 1 + 1e-12  # no replay gives this value
    checkpoint['param_schedulers'][0]['last_step'] = 6
    assert resumed.resume(checkpoint, 7) is None
    assert resumed.schedulers[0].last_step == 6
    assert str(resumed.wrapper.state_dict()) == str(checkpoint['optimizer'])


def test_what_a_hook_changed_while_training_goes_on():
    """A weight decay that a hook raised is no other config; it is kept beside a rate that the config changed."""
    first = Run(STEPS).train(4)
    for group in first.wrapper.optimizer.param_groups:
        group['weight_decay'] = 0.375
    resumed = Run(STEPS)
    assert resumed.resume(first.checkpoint(), 4) is None
    assert resumed.train(1).values[0][0]['weight_decay'] == 0.375
    resumed = Run(STEPS, optimizer={**SGD, 'lr': 1.0})
    assert 'weight_decay' not in resumed.resume(first.checkpoint(), 4)
    assert resumed.train(1).values[0][0] == dict(lr=1.0 * 0.1, momentum=0.75, betas=None, weight_decay=0.375)


OPTIONS = [
    (SGD, 'weight_decay', 0.25, 0.5),
    (SGD, 'momentum', 0.75, 0.5),
    (SGD, 'nesterov', False, True),
    (SGD, 'lr', 0.5, 0.125),
    (ADAM, 'betas', (0.5, 0.75), (0.9, 0.99)),
    (ADAM, 'eps', 1e-8, 1e-6),
    (ADAM, 'weight_decay', 0.25, 0.0),
]


@pytest.mark.parametrize('old', [False, True])
@pytest.mark.parametrize(('optimizer', 'key', 'there', 'here'), OPTIONS)
def test_the_options_of_the_config_hold(optimizer, key, there, here, old):
    """Both values are named, and the override that is offered gives a run without a difference."""
    checkpoint = Run(WARMUP, STEPS, optimizer={**optimizer, key: there}).train(8).checkpoint(old=old)
    resumed = Run(WARMUP, STEPS, optimizer={**optimizer, key: here})
    warning = resumed.resume(checkpoint, 8)
    number = {1e-8: '1e-08', 1e-6: '1e-06'}
    shown = [number.get(v, str(v).replace(' ', '').replace('0.0', '0') if v == 0.0 else str(v)) for v in (here, there)]
    shown = [text.replace(' ', '') for text in shown]
    assert f'optim_wrapper.optimizer.{key} {shown[0]} (checkpoint: {shown[1]})' in warning
    assert warning.count('(checkpoint:') == 1
    for group in resumed.wrapper.optimizer.param_groups:
        factor = 0.1 if key == 'lr' else 1
        assert group[key] == (pytest.approx(here * factor) if key == 'lr' else here)
    buffers = [state['optimizer']['state'] for state in (resumed.checkpoint(), checkpoint)]
    assert str(buffers[0]) == str(buffers[1])
    ((name, value),) = parse_overrides(warning.split('--cfg-options ')[1].split()).items()
    again = Run(WARMUP, STEPS, optimizer={**optimizer, name.split('.')[-1]: value})
    assert again.resume(checkpoint, 8) is None


def test_the_override_of_a_rate_that_is_scaled():
    """0.5 for the images of the config; twice as many images in a step now. Half of 0.5 gives the rate of before."""
    warning = (resumed := Run(STEPS, scale=2.0)).resume(checkpoint := Run(STEPS).train(4).checkpoint(), 4)
    assert 'optim_wrapper.optimizer.lr, scaled to the images in a step, 1 (checkpoint: 0.5)' in warning
    assert warning.endswith('--cfg-options optim_wrapper.optimizer.lr=0.25')
    assert resumed.train(1).values[0][0]['lr'] == pytest.approx(0.1)
    assert Run(STEPS, scale=2.0, optimizer={**SGD, 'lr': 0.25}).resume(checkpoint, 4) is None


def test_a_factor_of_a_parameter_group():
    first = Run(STEPS, paramwise=dict(norm_decay_mult=0.0)).train(4)
    resumed = Run(STEPS, paramwise=dict(norm_decay_mult=0.5))
    warning = resumed.resume(first.checkpoint(), 4)
    assert 'optim_wrapper.paramwise_cfg: weight_decay of parameter group 1 0.125 (checkpoint: 0)' in warning
    assert [group['weight_decay'] for group in resumed.wrapper.optimizer.param_groups] == [0.25, 0.125]


@pytest.mark.parametrize('name', [name for name in SCHEDULES if name != 'converted'])
def test_the_override_of_schedules(name):
    """What is offered is read by --cfg-options, and then nothing differs."""
    before, after = SCHEDULES[name]
    checkpoint = Run(*before).train(8).checkpoint()
    overrides = Run(*after).resume(checkpoint, 8).split('--cfg-options ')[1]
    changed = copy.deepcopy(after)
    for key, value in parse_overrides([item.strip('"') for item in overrides.split(' ')]).items():
        _, *path = key.split('.')
        if not path:
            changed = value
        elif len(path) == 1:
            changed[int(path[0])] = value
        else:
            changed[int(path[0])][path[1]] = value
    assert Run(*changed).resume(checkpoint, 8) is None


@pytest.mark.parametrize('old', [False, True])
@pytest.mark.parametrize(
    ('there', 'here'),
    [(SGD, ADAM), (ADAM, SGD), (SGD, dict(type='RMSprop', lr=0.5)), (ADAM, dict(type='NAdam', lr=0.5))],
)
def test_another_optimiser(there, here, old):
    checkpoint = Run(STEPS, optimizer=there).train(1).checkpoint(old=old)
    with pytest.raises(CheckpointError, match=r'a\.pth holds the state of .*load_from=a\.pth') as info:
        Run(STEPS, optimizer=here).resume(checkpoint, 1)
    assert here['type'] in str(info.value)
    assert (there['type'] in str(info.value)) != old
    assert len(str(info.value).splitlines()) == 1


def test_adam_is_not_adamw():
    """Their state has the same names."""
    checkpoint = Run(optimizer={**ADAM, 'type': 'Adam'}).train(1).checkpoint()
    with pytest.raises(CheckpointError, match='the state of Adam, and optim_wrapper.optimizer.type is AdamW'):
        Run(optimizer=ADAM).resume(checkpoint, 1)


SHIPPED = dict(norm_decay_mult=0.0)
BIAS_0, BIAS_2 = (dict(custom_keys={f'{k}.bias': dict(lr_mult=2.0)}) for k in (0, 2))


@pytest.mark.parametrize(
    ('there', 'here', 'sizes', 'named'),
    [
        (dict(), dict(paramwise=SHIPPED), ('1 parameter group of 6', '2 parameter groups of 4, 2'), '1.weight, 1.bias'),
        (
            dict(paramwise=SHIPPED),
            dict(paramwise=SHIPPED, frozen=[0]),
            ('2 parameter groups of 4, 2', '2 parameter groups of 2, 2'),
            '0.weight, 0.bias',
        ),
        (
            dict(paramwise=SHIPPED, frozen=[0]),
            dict(paramwise=SHIPPED),
            ('2 parameter groups of 2, 2', '2 parameter groups of 4, 2'),
            '0.weight, 0.bias',
        ),
        (dict(paramwise=BIAS_0), dict(paramwise=BIAS_2), ('of 5, 1', 'of 5, 1'), '2.bias, 0.bias'),
    ],
)
def test_other_parameter_groups(there, here, sizes, named):
    first = Run(STEPS, **there).train(1)
    with pytest.raises(CheckpointError, match=f'{sizes[0]} .*{sizes[1]} .*{named}.*load_from=a.pth'):
        Run(STEPS, **here).resume(first.checkpoint(), 1)
    if sizes[0] != sizes[1]:  # an older checkpoint does not name its parameters
        with pytest.raises(CheckpointError, match=f'{sizes[0]} .*{sizes[1]} .*load_from=a.pth'):
            Run(STEPS, **here).resume(first.checkpoint(old=True), 1)


def test_what_follows_validation_goes_on_alone():
    """Its reductions came from figures that are not known any more."""
    plateau = dict(type='ReduceOnPlateauLR', monitor='loss', patience=3)
    first = Run(plateau).train(4)
    first.schedulers[0].step(dict(loss=1.0))
    assert (resumed := Run(plateau)).resume(first.checkpoint(), 4) is None
    assert resumed.schedulers[0].best == 1.0
    with pytest.raises(ConfigError, match=r'ReduceOnPlateauLR.*patience 5 \(checkpoint: 3\).*load_from=a.pth'):
        Run({**plateau, 'patience': 5}).resume(first.checkpoint(), 4)
    with pytest.raises(ConfigError, match=r'ReduceOnPlateauLR.*optimizer.lr 1 \(checkpoint: 0.5\)'):
        Run(plateau, optimizer={**SGD, 'lr': 1.0}).resume(first.checkpoint(), 4)
    assert Run(STEPS).resume(first.checkpoint(), 4)  # a schedule that can be computed takes its place


def loop(cls, epoch, iteration, *, end, length=4):
    """A loop that stands there, without data."""
    found = object.__new__(cls)
    vars(found).update(_epoch=epoch, _iter=iteration, _max_epochs=end, _max_iters=end, dataloader=range(length))
    return found


def position(one, **begun):
    hub = MessageHub.get_instance('position')
    hub.update_info('epoch_begin', begun or None)
    return position_of(one, hub, 'a.pth')


def test_where_a_loop_stands():
    """Two epochs of 4 and 3 iterations more; the same where the epochs were of 6; 9 of a loop by iterations."""
    assert position(loop(EpochBasedTrainLoop, 2, 11, end=5), epoch=2, iter=8, length=4) == (2, 11, 11, 4)
    assert position(loop(EpochBasedTrainLoop, 2, 15, end=5), epoch=2, iter=12, length=6) == (2, 15, 8, 4)
    assert position(loop(EpochBasedTrainLoop, 2, 8, end=2), epoch=1, iter=4, length=4) == (2, 8, 8, 4)
    assert position(loop(IterBasedTrainLoop, 0, 9, end=9)) == (0, 9, 9, 4)


@pytest.mark.parametrize(
    ('one', 'message'),
    [
        (loop(EpochBasedTrainLoop, 5, 20, end=4), 'was saved after epoch 5, and train_cfg.max_epochs=4 ends before'),
        (loop(IterBasedTrainLoop, 0, 20, end=19), 'was saved after iter 20, and train_cfg.max_iters=19 ends before'),
        (
            loop(EpochBasedTrainLoop, 0, 20, end=4),
            'was saved by a loop that counts iterations, after 20, and',
        ),
    ],
)
def test_a_position_that_the_run_has_not(one, message):
    with pytest.raises(ConfigError, match=f'a.pth {message}.*load_from=a.pth'):
        position(one)
