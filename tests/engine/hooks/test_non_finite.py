"""A step that is no number is not taken: what is said, kept and repeated."""

import copy

import pytest
import torch
from mmengine.hooks import Hook
from torch import nn

from frdet.apis.replay import replay_step
from frdet.engine.hooks import NonFiniteError, NonFiniteHook
from frdet.engine.hooks.non_finite import load_step
from frdet.errors import CheckpointError, ConfigError, UserError
from frdet.registry import DETECTORS
from tests.apis.test_launch import launched
from tests.engine import toy
from tests.models.detectors.test_host_waits import NoWaits


class _Infinite(torch.autograd.Function):
    """The same number, with a gradient that is not."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float('inf')


class Break(nn.Module):
    """Breaks batches that hold a value: 4 is that of image 104."""

    def __init__(self, how, value):
        super().__init__()
        self.how, self.value = how, value

    def forward(self, x, values):
        if self.how not in ('module', 'gradient') or not (values == self.value).any():
            return x
        return _Infinite.apply(x) if self.how == 'gradient' else x * float('nan')


@DETECTORS.register_module(force=True)
class BadBatchDetector(toy.ToyDetector):
    """A toy with dropout, so that a step depends on random numbers, and a place that breaks."""

    def __init__(self, *, how=None, value=4):
        super().__init__()
        self.first = nn.Conv2d(1, 1, 1)
        self.drop = nn.Dropout(0.5)
        self.breaks = Break(how, value)
        self.losses = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        values = torch.stack(list(inputs)).view(-1, 1, 1, 1)
        out = self.breaks(self.first(values), values)
        if mode == 'predict':
            return data_samples
        out = self.drop(self.layer(out)).float()
        constant = float('nan') if self.breaks.how == 'loss' and (values == self.breaks.value).any() else 0.0
        losses = dict(loss_cls=out.square().mean() + constant, loss_bbox=out.abs().mean())
        self.losses.append({name: value.detach() for name, value in losses.items()})
        return dict(**losses, acc=torch.tensor(50.0))


def config(tmp_path, how='module', value=4, **changes):
    in_order = {'train_dataloader.sampler.shuffle': False, 'train_cfg.max_epochs': 1, 'param_scheduler': []}
    cfg = toy.config(tmp_path, **{**in_order, **changes})
    cfg.model = dict(type='BadBatchDetector', how=how, value=value)
    cfg.default_hooks.checkpoint.save_best = None
    return cfg


def stopped(cfg):
    """The error of a run, and its model's state after each of the iterations before."""
    run = toy.Runner.from_cfg(cfg)
    states = [copy.deepcopy(run.model.state_dict())]

    class Note(Hook):
        def after_train_iter(self, runner, *args, **kwargs):
            model = getattr(runner.model, 'module', runner.model)
            states.append(copy.deepcopy(model.state_dict()))

    run.register_hook(Note())
    with pytest.raises(NonFiniteError) as info:
        run.train()
    return str(info.value), run, states


def same(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize('amp', [False, True])
def test_a_bad_output_is_named_and_nothing_changes(tmp_path, amp):
    """Three images a batch in order of id: 104 is in the second."""
    kind = {'optim_wrapper.type': 'AutocastOptimWrapper'} if amp else {}
    message, run, states = stopped(config(tmp_path, **kind))
    assert message.startswith('Training stopped in iteration 2 (epoch 1): loss_cls is nan; loss_bbox is nan; ')
    assert 'that of breaks.' in message
    assert '103 (/images/103.jpg), 104 (/images/104.jpg), 105 (/images/105.jpg)' in message
    assert 'non_finite_iter_2.pth' in message and len(message.splitlines()) == 2
    assert issubclass(NonFiniteError, UserError)
    assert len(states) == 2 and same(run.model, states[1])


@pytest.mark.parametrize('clip', [None, dict(max_norm=1.0)])
def test_a_bad_gradient_is_named_and_nothing_changes(tmp_path, clip):
    cfg = config(tmp_path, 'gradient')
    cfg.optim_wrapper.clip_grad = clip
    message, run, states = stopped(cfg)
    # Backwards from the loss, what is behind the break is the first convolution; of it, the bias was made last.
    assert 'the losses are finite, the gradient of first.bias is not' in message
    assert same(run.model, states[1])


def test_names_a_parameter_that_is_bad_already(tmp_path):
    run = toy.Runner.from_cfg(config(tmp_path, None))
    nn.init.constant_(run.model.first.weight, float('inf'))
    with pytest.raises(NonFiniteError, match='iteration 1 .*the parameter first.weight is not finite already'):
        run.train()


def test_accumulated_gradients_are_looked_at_in_every_iteration(tmp_path):
    """The bad batch is the second of three that make a step."""
    message, run, states = stopped(config(tmp_path, **{'optim_wrapper.accumulative_counts': 3}))
    assert 'iteration 2 ' in message and '104 (' in message
    assert same(run.model, states[1])


def test_what_does_not_happen_again_is_said(tmp_path):
    """The loss is NaN in the model's fifth pass alone."""
    run = toy.runner(tmp_path, **{'model.bad_iteration': 5})
    forward = run.model.forward

    def once(*args, **kwargs):
        run.model.bad_iteration = 5 if run.model.calls == 4 else -1
        return forward(*args, **kwargs)

    run.model.forward = once
    with pytest.raises(NonFiniteError, match='the loss was nan; computed again, all of it is finite'):
        run.train()


@pytest.mark.parametrize('how', ['module', 'gradient'])
@pytest.mark.parametrize('count', [1, 2])
def test_skip_is_as_if_the_batch_were_not_there(tmp_path, how, count):
    """Four batches; the second is bad. With two to a step its step is lost: the fourth ends the other one."""
    plain = {'optim_wrapper.accumulative_counts': count, 'optim_wrapper.optimizer.weight_decay': 0.0}
    cfg = config(tmp_path, how, **plain)
    cfg.default_hooks.non_finite.action = 'skip'
    run = toy.Runner.from_cfg(cfg)
    run.model.drop = nn.Identity()
    model = copy.deepcopy(run.model)
    run.train()
    (log,) = tmp_path.glob('*/*.log')
    assert log.read_text().count('Skipped iteration 2 (epoch 1)') == 1
    assert (tmp_path / 'non_finite_iter_2.pth').is_file()

    model.train()
    sgd = torch.optim.SGD(model.parameters(), lr=0.02 * 3 / 16, momentum=0.9)
    for i in (0, 2, 3):  # BatchNorm saw the first batch, too
        values = torch.arange(3.0 * i, 3 * i + 3).view(3, 1, 1, 1)
        out = model.layer(model.first(values))
        ((out.square().mean() + out.abs().mean()) / count).backward()
        if count == 1 or i == 3:
            sgd.step()
        if count == 1 or i in (0, 3):
            sgd.zero_grad()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(run.model.state_dict()[name], value, msg=name)


def test_skipped_steps_end_the_run_when_they_are_too_many_in_a_row(tmp_path):
    cfg = toy.config(tmp_path, **{'model.bad_iteration': 3})
    cfg.default_hooks.non_finite.update(action='skip', max_skips=2)
    run = toy.Runner.from_cfg(cfg)
    with pytest.raises(NonFiniteError, match='iteration 5 '):
        run.train()


def test_interval(tmp_path):
    """Looked at in iterations 3, 6, ...: the bad batch of the second one is not seen, its weights are."""
    cfg = config(tmp_path)
    cfg.default_hooks.non_finite.interval = 3
    message, _, _ = stopped(cfg)
    assert 'iteration 3 ' in message and 'not finite already' in message


def test_a_gpu_waits_once_in_a_step(tmp_path):
    """The flag is read after the backward pass, and nothing else of it."""
    run = toy.Runner.from_cfg(config(tmp_path, None))
    waits = {}

    class Look(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, *args, **kwargs):
            waits[runner.iter] = NoWaits().__enter__()

        def after_train_iter(self, runner, *args, **kwargs):
            waits[runner.iter].__exit__(None, None, None)

    run.register_hook(Look())
    run._hooks.insert(0, run._hooks.pop())  # its end comes first, before the logs
    run.train()
    found = [name for name in waits[1].found if 'test_non_finite' not in name]  # the toy looks at its batch
    assert len(found) == 1 and found[0].startswith('_local_scalar_dense at non_finite.py')


def test_unknown_action():
    with pytest.raises(ConfigError, match="'stop' or 'skip'"):
        NonFiniteHook(action='ignore')


@pytest.mark.parametrize('amp', [False, True])
def test_replay_repeats_the_step(tmp_path, amp):
    """With its random numbers: dropout drops the same, so that the finite losses are the logged ones."""
    kind = {'optim_wrapper.type': 'AutocastOptimWrapper'} if amp else {}
    _, run, _ = stopped(config(tmp_path / 'run', 'gradient', **kind))
    path = tmp_path / 'run' / 'non_finite_iter_2.pth'
    assert set(torch.load(path, weights_only=True)) >= {'batch', 'state_dict', 'rng'}
    found = replay_step(config(tmp_path, 'gradient'), str(path))
    assert found.gradient == 'first.bias' and not found.is_finite
    assert replay_step(config(tmp_path, None), str(path)).is_finite
    _, step, diagnosed = run.model.losses
    assert diagnosed == step == {name: found.losses[name] for name in ('loss_cls', 'loss_bbox')}
    step = load_step(str(path))
    assert [s.img_id for s in step['batch']['data_samples']] == [103, 104, 105]
    assert step['autocast'] == ('bfloat16' if amp else '')


@pytest.mark.parametrize('action', ['stop', 'skip'])
def test_two_processes_agree(tmp_path, action):
    """The loss of the second one is NaN, in its first batch: images 101, 103, 105. No gradient tells the first one."""
    cfg = config('', 'loss', 5, **{'default_hooks.non_finite.action': action})
    cfg.pop('work_dir')
    cfg.custom_imports = dict(imports=['tests.engine.hooks.test_non_finite'])
    cfg.dump(str(tmp_path / 'toy.py'))
    done = launched('dist_train.sh', tmp_path / 'toy.py', 2, '--work-dir', tmp_path / 'work')
    output = done.stdout + done.stderr
    files = {path.name for path in (tmp_path / 'work').glob('*.pth')}
    if action == 'stop':
        assert done.returncode != 0
        assert 'error: Training stopped in iteration 1 (epoch 1, process 1): loss_cls is nan' in done.stderr
        assert '101 (/images/101.jpg), 103 (/images/103.jpg), 105 (/images/105.jpg)' in done.stderr
        assert files == {'non_finite_iter_1_rank1.pth'}
    else:
        assert done.returncode == 0, output
        assert output.count('Skipped iteration 1 (epoch 1, process 1)') == 1
        assert files == {'non_finite_iter_1_rank1.pth', 'epoch_1.pth'}


def test_another_file_is_refused(tmp_path):
    torch.save({'state_dict': {}}, tmp_path / 'epoch_1.pth')
    with pytest.raises(CheckpointError, match='lacks autocast, batch'):
        load_step(str(tmp_path / 'epoch_1.pth'))
