"""Parts of a model that are frozen by name stay as they are to the last bit, their norms' statistics included."""

import copy

import pytest
import torch
from mmengine.runner import Runner
from torch import nn

from frdet.apis import train_detector
from frdet.engine import DetRunner
from frdet.engine.optim import freeze, freeze_parameters, is_meant
from frdet.errors import ConfigError
from tests.engine import toy

FREEZE = {'optim_wrapper.paramwise_cfg': dict(norm_decay_mult=0.0, freeze=['layer.0', 'layer.1.*'])}


@pytest.mark.parametrize(
    ('pattern', 'meant'),
    [
        ('neck', {'neck.a.weight', 'neck.bn.weight', 'neck.bn.bias'}),
        ('neck.*', {'neck.a.weight', 'neck.bn.weight', 'neck.bn.bias'}),
        ('*.bn', {'neck.bn.weight', 'neck.bn.bias'}),
        ('*.weight', {'neck.a.weight', 'neck.bn.weight', 'necklace.weight'}),
        ('neck.[a-c]', {'neck.a.weight'}),
        ('bn', set()),
        ('nec', set()),
    ],
)
def test_what_a_pattern_means(pattern, meant):
    names = ['neck.a.weight', 'neck.bn.weight', 'neck.bn.bias', 'necklace.weight']
    assert {name for name in names if is_meant(name, pattern)} == meant


def trained(path):
    """Start and end of a run; the parameters that its optimiser has a state of."""
    content = torch.load(path, weights_only=True)
    return content['state_dict'], content['optimizer']


@pytest.mark.parametrize('hooks', [[], [dict(type='EMAHook')]])
def test_frozen_parts_do_not_change_in_training_or_after_resuming(tmp_path, hooks):
    changes = {**FREEZE, 'custom_hooks': hooks, 'train_cfg.max_epochs': 1}
    start = copy.deepcopy(toy.runner(tmp_path / 'start', **changes).model.state_dict())
    train_detector(toy.config(tmp_path / 'run', **changes))
    model = train_detector(toy.config(tmp_path / 'run', **{**changes, 'train_cfg.max_epochs': 2}), resume=True)
    state, optimizer = trained(tmp_path / 'run' / 'epoch_2.pth')
    assert {name for name in state if not torch.equal(state[name], start[name])} == {'layer.2.weight', 'layer.2.bias'}
    assert len(optimizer['state']) == 2
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {'layer.2.weight', 'layer.2.bias'}


def test_norms_of_a_copy_are_kept_as_well():
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2, affine=False), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
    freeze(net, ['[01]', '2.weight'])
    for one in (net, copy.deepcopy(net)):
        one.train()(torch.randn(4, 2, 3, 3))
        assert [norm.num_batches_tracked.item() for norm in one[:3]] == [0, 0, 1]  # a norm of which half is trained


def test_frozen_before_the_model_is_wrapped(tmp_path, monkeypatch):
    """DistributedDataParallel expects a gradient of each parameter that wants one when it is made."""
    seen = []

    def wrap(self, cfg, model):
        seen.extend(name for name, parameter in model.named_parameters() if parameter.requires_grad)
        return model

    monkeypatch.setattr(Runner, 'wrap_model', wrap)
    DetRunner.from_cfg(toy.config(tmp_path, **FREEZE))
    assert seen == ['layer.2.weight', 'layer.2.bias']


def test_a_pattern_that_means_nothing_is_an_error(tmp_path):
    changes = {'optim_wrapper.paramwise_cfg.freeze': ['layers.0.*']}
    words = r"no parameter of ToyDetector is called 'layers\.0\.\*'; did you mean layer\.0"
    with pytest.raises(ConfigError, match=words):
        train_detector(toy.config(tmp_path, **changes))


def test_nothing_left_to_train():
    with pytest.raises(ConfigError, match=r"freeze=\['\*'\] leaves nothing to train"):
        freeze_parameters(nn.Linear(1, 1), ['*'])
