"""Parameter groups by detectron2's rule, the learning rate at every iteration, mixed precision."""

import itertools
import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from frdet.engine import GroupedOptimWrapperConstructor, optim
from frdet.errors import ConfigError
from frdet.models.layers import FrozenBatchNorm2d
from frdet.registry import OPTIM_WRAPPERS
from tests.engine import toy


class Net(nn.Module):
    """Every kind of parameter: plain, norms of all kinds, frozen, shared."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.SyncBatchNorm(4)])
        self.frozen_bn = FrozenBatchNorm2d(4)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.fc = nn.Linear(4, 5)
        self.shared = nn.ModuleList([self.fc, nn.Linear(5, 1, bias=False)])
        self.shared[1].weight = nn.Parameter(torch.ones(1, 5))
        self.again = nn.Linear(5, 1, bias=False)
        self.again.weight = self.shared[1].weight


def build(net, paramwise_cfg, cls=GroupedOptimWrapperConstructor):
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4))
    return cls(cfg, paramwise_cfg)(net)


def options(net, wrapper):
    """Name of every parameter in the optimiser -> its learning rate and weight decay."""
    names = {id(p): name for name, p in net.named_parameters()}
    groups = wrapper.optimizer.param_groups
    found = [(names[id(p)], (g['lr'], g['weight_decay'])) for g in groups for p in g['params']]
    assert len(found) == len(dict(found)), 'a parameter is in two groups'
    return dict(found)


def test_detectron2_rule():
    net = Net()
    wrapper = build(net, dict(norm_decay_mult=0.0))
    plain, norm = (0.02, 1e-4), (0.02, 0.0)
    expected = {f'norms.{i}.{kind}': norm for i in range(4) for kind in ('weight', 'bias')}
    for name in ('conv.weight', 'conv.bias', 'fc.weight', 'fc.bias', 'shared.1.weight'):
        expected[name] = plain
    assert options(net, wrapper) == expected
    assert len(wrapper.optimizer.param_groups) == 2
    assert wrapper.get_lr() == {'lr': [0.02, 0.02]}


def test_bias_factors():
    net = Net()
    found = options(net, build(net, dict(norm_decay_mult=0.5, bias_lr_mult=2.0, bias_decay_mult=0.0)))
    assert found['conv.bias'] == found['fc.bias'] == (0.04, 0.0)
    assert found['norms.0.bias'] == found['norms.1.weight'] == (0.02, 0.5e-4)
    assert found['conv.weight'] == (0.02, 1e-4)


@pytest.mark.parametrize(
    'paramwise_cfg',
    [
        dict(norm_decay_mult=0.0),
        dict(bias_lr_mult=2.0, norm_decay_mult=0.1, bias_decay_mult=0.3),
        dict(custom_keys={'fc': dict(lr_mult=0.1, decay_mult=0.5), 'norms': dict(lr_mult=3.0)}),
        None,
    ],
)
def test_same_options_as_mmengine(paramwise_cfg):
    """Only the grouping is ours."""
    net = Net()
    del net.again, net.shared  # MMEngine raises at a shared parameter
    theirs = options(net, build(net, paramwise_cfg, DefaultOptimWrapperConstructor))
    if paramwise_cfg is None:  # MMEngine then passes frozen parameters on; without a gradient they are never changed
        theirs = {name: value for name, value in theirs.items() if not name.startswith('frozen')}
    found = options(net, build(net, paramwise_cfg))
    assert {k: v for k, v in found.items() if not k.startswith('frozen')} == theirs


def test_a_key_changes_what_it_names():
    """MMEngine would give norms whose rate is lowered the weight decay of other parameters."""
    keys = {'norms': dict(lr_mult=0.5), 'norms.*.bias': dict(decay_mult=2.0), 'f*': dict(lr_mult=0.1)}
    net = Net()
    found = options(net, build(net, dict(norm_decay_mult=0.0, bias_lr_mult=3.0, custom_keys=keys)))
    assert found['norms.0.weight'] == (0.01, 0.0)
    assert found['norms.0.bias'] == (0.02, 2e-4)  # the longest key that fits
    assert found['fc.weight'] == (0.002, 1e-4)
    assert found['fc.bias'] == (0.002, 1e-4)
    assert found['conv.bias'] == (0.06, 1e-4)


def test_a_key_without_effect_is_told(capfd):
    build(Net(), dict(custom_keys={'norm.*': dict(lr_mult=0.1), 'fc': dict(lr_mult=0.1)}))
    text = ''.join(capfd.readouterr())
    assert "no parameter of Net has 'norm.*' in its name, so that the key has no effect; did you mean norms" in text
    assert "'fc'" not in text


def detectron2_rate(i, milestones):
    warm = 0.001 * (1 - i / 1000) + i / 1000 if i < 1000 else 1.0
    return 0.02 * warm * 0.1 ** sum(m <= i for m in milestones)


def rates(schedule, iterations, epoch_length):
    """The learning rate of every iteration, stepped as MMEngine's ParamSchedulerHook does."""
    cfg = Config.fromfile(toy.ROOT / f'configs/_base_/schedules/{schedule}.py')
    wrapper = build(nn.Linear(1, 1), dict(norm_decay_mult=0.0))
    schedulers = [PARAM_SCHEDULERS.build({**s, 'optimizer': wrapper}) for s in cfg.param_scheduler]
    for i in range(iterations):
        yield wrapper.get_lr()['lr'][0]
        for s in schedulers:
            if not s.by_epoch or (i + 1) % epoch_length == 0:
                s.step()


def test_schedule_90k_at_every_iteration():
    found = list(rates('schedule_90k', 90000, 0))
    expected = [detectron2_rate(i, (60000, 80000)) for i in range(90000)]
    assert found == pytest.approx(expected, rel=1e-9)
    assert found[0] == pytest.approx(2e-5)
    assert found[500] == pytest.approx(0.02 * 0.5005)
    assert found[1000] == pytest.approx(0.02)


@pytest.mark.parametrize('epoch_length', [826, 300])
def test_schedule_1x_at_every_iteration(epoch_length):
    """826 iterations of 6 images are an epoch of val2017; in the short one the warm-up ends in the fourth epoch."""
    found = list(rates('schedule_1x', 12 * epoch_length, epoch_length))
    expected = [detectron2_rate(i, (8 * epoch_length, 11 * epoch_length)) for i in range(12 * epoch_length)]
    assert found == pytest.approx(expected, rel=1e-9)


def logged(work_dir, key):
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    lines = itertools.chain(*(f.read_text().splitlines() for f in files))
    return [record[key] for record in map(json.loads, lines) if key in record]


def test_rate_follows_the_batch_and_survives_resuming(tmp_path):
    """3 images a batch: 0.02 * 3 / 16. A resumed run scales nothing twice."""
    changes = {'param_scheduler.0.end': 4, 'default_hooks.checkpoint.save_best': None}
    toy.runner(tmp_path, **changes, **{'train_cfg.max_epochs': 1}).train()
    toy.runner(tmp_path, **changes, **{'train_cfg.max_epochs': 2}, resume=True).train()
    found = logged(tmp_path, 'lr')
    full = 0.02 * 3 / 16
    warm = [full * (0.001 * (1 - i / 3) + i / 3) for i in range(3)]
    assert found == pytest.approx(warm + [full] * 5)
    assert not logged(tmp_path, 'base_lr')
    log = next(iter(sorted(tmp_path.glob('*/*.log')))).read_text()
    assert re.search(r'LR is set based on batch size of 16 and the current batch size is 3', log)
    assert 'Optimiser: 4 parameters of 13 values, lr 0.02' in log
    assert 'paramwise_options' not in log


def test_autocast_trains_on_the_cpu(tmp_path):
    run = toy.runner(tmp_path, **{'optim_wrapper.type': 'AutocastOptimWrapper', 'train_cfg.max_epochs': 1})
    run.model.layer = nn.Sequential(run.model.layer[0])
    before = run.model.layer[0].weight.detach().clone()
    run.train()
    assert torch.bfloat16 in run.model.dtypes
    assert run.model.layer[0].weight.dtype == torch.float32
    assert not torch.equal(before, run.model.layer[0].weight)


@pytest.mark.parametrize(('native', 'gpu', 'count'), [(False, False, 1), (True, False, 0), (False, True, 0)])
def test_a_cpu_that_emulates_bfloat16(monkeypatch, native, gpu, count):
    said = []
    monkeypatch.setattr(optim, 'warn', said.append)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: native)
    optim.warn_if_bfloat16_is_emulated()
    assert len(said) == count and all('emulates bfloat16' in text for text in said)


@pytest.mark.parametrize(('dtype', 'count'), [('bfloat16', 1), ('float16', 0)])
def test_only_bfloat16_is_asked_for(monkeypatch, dtype, count):
    asked = []
    monkeypatch.setattr(optim, 'warn_if_bfloat16_is_emulated', lambda: asked.append(1))
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1)
    OPTIM_WRAPPERS.build(dict(type='AutocastOptimWrapper', optimizer=optimizer, dtype=dtype))
    assert len(asked) == count


def test_autocast_dtype_is_checked():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1)
    with pytest.raises(ConfigError, match='bfloat16 or float16'):
        OPTIM_WRAPPERS.build(dict(type='AutocastOptimWrapper', optimizer=optimizer, dtype='int8'))
