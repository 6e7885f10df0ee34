import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozenBatchNorm2d

from frdet.errors import ConfigError
from frdet.models.layers import FrozenBatchNorm2d, build_norm, conv_norm, has_untouched_frozen_norm


def random_frozen(channels: int) -> FrozenBatchNorm2d:
    norm = FrozenBatchNorm2d(channels)
    norm.load_state_dict(
        {
            'weight': torch.randn(channels),
            'bias': torch.randn(channels),
            'running_mean': torch.randn(channels),
            'running_var': torch.rand(channels) + 0.5,
        }
    )
    return norm


def frozen_pair() -> tuple[nn.Conv2d, FrozenBatchNorm2d]:
    """A convolution that is not trained and its norm, as in a frozen stage."""
    return nn.Conv2d(3, 4, 3, bias=False).requires_grad_(False), random_frozen(4)


def unfused(x: Tensor, conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> Tensor:
    """The two layers one after the other, by functions of torch alone."""
    return nn.functional.batch_norm(conv(x), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def test_frozen_norm_by_hand() -> None:
    norm = FrozenBatchNorm2d(1, eps=0.0)
    norm.load_state_dict(
        {
            'weight': torch.tensor([3.0]),
            'bias': torch.tensor([1.0]),
            'running_mean': torch.tensor([5.0]),
            'running_var': torch.tensor([4.0]),
        }
    )
    scale, shift = norm.scale_shift()
    assert scale.item() == 1.5  # 3 / sqrt(4)
    assert shift.item() == -6.5  # 1 - 5 * 1.5
    assert norm(torch.tensor([[[[7.0]]]])).item() == 4.0  # (7 - 5) / 2 * 3 + 1


def test_frozen_norm_is_torchvisions() -> None:
    norm, reference = random_frozen(6), TorchvisionFrozenBatchNorm2d(6)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(2, 6, 5, 4)
    torch.testing.assert_close(norm(x), reference(x))


def test_frozen_norm_keeps_the_inputs_dtype() -> None:
    assert random_frozen(2)(torch.randn(1, 2, 3, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_frozen_norm_has_buffers_alone() -> None:
    norm = FrozenBatchNorm2d(2)
    assert list(norm.parameters()) == []
    assert list(norm.state_dict()) == ['weight', 'bias', 'running_mean', 'running_var']


def test_counter_of_trained_norms_is_ignored() -> None:
    trained = nn.BatchNorm2d(3)
    trained(torch.randn(4, 3, 2, 2))
    assert 'num_batches_tracked' in trained.state_dict()
    norm = FrozenBatchNorm2d(3)
    result = norm.load_state_dict(trained.state_dict(), strict=True)
    assert not result.unexpected_keys and not result.missing_keys
    torch.testing.assert_close(norm.running_mean, trained.running_mean)


def test_missing_statistics_are_reported() -> None:
    with pytest.raises(RuntimeError, match='running_var'):
        FrozenBatchNorm2d(3).load_state_dict(
            {'weight': torch.ones(3), 'bias': torch.ones(3), 'running_mean': torch.ones(3)}
        )


def other() -> Tensor:
    return torch.randn(4, 3, 3, 3)


def _vector(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    nn.utils.vector_to_parameters(torch.randn(4 * 3 * 3 * 3), conv.parameters())


def _swap(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    torch.utils.swap_tensors(conv.weight, nn.Parameter(other(), requires_grad=conv.weight.requires_grad))


def _set(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    with torch.no_grad():
        conv.weight.set_(other())


def _assign_data(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    conv.weight.data = other()


def _replace(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    conv.weight = nn.Parameter(other(), requires_grad=conv.weight.requires_grad)


def _step(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    conv.requires_grad_(True)
    conv.weight.grad = other()
    torch.optim.SGD(conv.parameters(), lr=1.0, fused=True).step()


def _ema(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    """What MMEngine's EMAHook does around a validation."""
    averaged = other()
    held = conv.weight.data.clone()
    conv.weight.data.copy_(averaged)
    averaged.data.copy_(held)


#: Every public way in which a convolution's weight, or what its norm holds, changes.
CHANGES: dict[str, Callable[[nn.Conv2d, FrozenBatchNorm2d], object]] = {
    'load_state_dict': lambda conv, norm: conv.load_state_dict({'weight': other()}),
    'load_state_dict(assign=True)': lambda conv, norm: conv.load_state_dict({'weight': other()}, assign=True),
    'load_state_dict of the norm': lambda conv, norm: norm.load_state_dict(random_frozen(4).state_dict()),
    'the same by assignment': lambda conv, norm: norm.load_state_dict(random_frozen(4).state_dict(), assign=True),
    'in place': lambda conv, norm: conv.weight.detach().add_(1),
    'a statistic in place': lambda conv, norm: norm.running_var.mul_(4),
    'data.copy_': lambda conv, norm: conv.weight.data.copy_(other()),
    'data of a buffer': lambda conv, norm: norm.running_mean.data.add_(1),
    'data[...] =': lambda conv, norm: conv.weight.data.__setitem__((0, 0), 7.0),
    'data =': _assign_data,
    'set_': _set,
    'numpy': lambda conv, norm: conv.weight.detach().numpy().fill(0.5),
    'dlpack': lambda conv, norm: torch.from_dlpack(conv.weight.detach()).fill_(0.5),
    'storage': lambda conv, norm: conv.weight.untyped_storage().copy_(other().untyped_storage()),
    'foreach': lambda conv, norm: torch._foreach_add_([conv.weight.data], 1.0),
    'vector_to_parameters': _vector,
    'swap_tensors': _swap,
    'a new parameter': _replace,
    'nn.init': lambda conv, norm: nn.init.normal_(conv.weight),
    'a fused optimiser': _step,
    'an average swapped in': _ema,
    'a new eps': lambda conv, norm: setattr(norm, 'eps', 1.0),
}


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('trained', [False, True])
@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_the_next_forward_pass_sees_every_change(
    change: Callable[[nn.Conv2d, FrozenBatchNorm2d], object], trained: bool, training: bool
) -> None:
    """Without gradients, as in evaluation and in the frozen stages."""
    conv, norm = frozen_pair()
    nn.ModuleList([conv.requires_grad_(trained), norm]).train(training)
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        before = conv_norm(x, conv, norm)
        torch.testing.assert_close(before, unfused(x, conv, norm), atol=1e-5, rtol=1e-5)
    change(conv, norm)
    with torch.no_grad():
        after = conv_norm(x, conv, norm)
        assert not torch.allclose(before, after)
        torch.testing.assert_close(after, unfused(x, conv, norm), atol=1e-5, rtol=1e-5)


def test_folding_follows_the_dtype() -> None:
    conv, norm = frozen_pair()
    x = torch.randn(2, 3, 6, 6)
    single = conv_norm(x, conv, norm)
    conv.double()
    norm.double()
    double = conv_norm(x.double(), conv, norm)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, single.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_share_nothing(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    pair = nn.ModuleList(frozen_pair())
    x = torch.randn(1, 3, 5, 5)
    original = conv_norm(x, *pair)
    conv, norm = duplicate(pair)
    torch.testing.assert_close(conv_norm(x, conv, norm), original)
    norm.bias.add_(1)
    torch.testing.assert_close(conv_norm(x, conv, norm), original + 1)
    torch.testing.assert_close(conv_norm(x, *pair), original)


def test_inference_mode_leaves_nothing_that_training_refuses() -> None:
    conv, norm = frozen_pair()
    with torch.inference_mode():
        conv_norm(torch.randn(1, 3, 5, 5), conv, norm)
    x = torch.randn(1, 3, 5, 5, requires_grad=True)
    conv_norm(x, conv, norm).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize('grad', [True, False])
def test_folding_compiles_as_one_graph(grad: bool) -> None:
    conv, norm = frozen_pair()
    x = torch.randn(1, 3, 5, 5)
    with torch.set_grad_enabled(grad):
        compiled = torch.compile(lambda x: conv_norm(x, conv, norm), backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(x), unfused(x, conv, norm), atol=1e-5, rtol=1e-5)


def test_untouched_norms_are_found() -> None:
    net = nn.Sequential(random_frozen(3), nn.Sequential(FrozenBatchNorm2d(3)))
    assert has_untouched_frozen_norm(net)
    net[1][0].running_mean[2] = 0.5
    assert not has_untouched_frozen_norm(net)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d(3), nn.GroupNorm(1, 3), nn.ReLU()])
def test_only_frozen_norms_can_be_untouched(norm: nn.Module) -> None:
    assert not has_untouched_frozen_norm(nn.Sequential(norm))


@pytest.mark.parametrize(
    ('cfg', 'expected'),
    [
        (dict(type='FrozenBN', eps=1e-3), FrozenBatchNorm2d),
        (dict(type='BN', eps=1e-3), nn.BatchNorm2d),
        (dict(type='SyncBN', eps=1e-3), nn.SyncBatchNorm),
        (dict(type='GN', num_groups=4, eps=1e-3), nn.GroupNorm),
    ],
)
def test_norms_by_name(cfg: dict, expected: type[nn.Module]) -> None:
    given = copy.deepcopy(cfg)
    norm = build_norm(cfg, 8)
    assert isinstance(norm, expected)
    assert norm.weight.shape == (8,)
    assert norm.eps == 1e-3
    assert cfg == given  # a config serves many layers


def test_group_norm_has_32_groups_unless_told() -> None:
    assert build_norm(dict(type='GN'), 64).num_groups == 32
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(
        build_norm(dict(type='GN', num_groups=4), 8)(x), nn.functional.group_norm(x, 4), atol=1e-5, rtol=1e-5
    )


def test_unknown_norm_names_near_ones() -> None:
    with pytest.raises(ConfigError, match='FrozenBN'):
        build_norm(dict(type='FrozenBatchNorm'), 8)
