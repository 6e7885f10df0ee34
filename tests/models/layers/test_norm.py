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


def test_folding_is_kept_where_nothing_is_trained() -> None:
    conv, norm = frozen_pair()
    first = norm.fold_into(conv.weight)
    again = norm.fold_into(conv.weight)
    assert all(a is b for a, b in zip(first, again, strict=True))


def test_folding_of_a_trained_weight_is_kept_only_without_gradients() -> None:
    conv, norm = frozen_pair()
    conv.requires_grad_(True)
    assert norm.fold_into(conv.weight)[0].requires_grad
    with torch.no_grad():
        assert norm.fold_into(conv.weight)[0] is norm.fold_into(conv.weight)[0]
    assert norm.fold_into(conv.weight)[0].requires_grad


def _load(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    norm.load_state_dict(random_frozen(4).state_dict())


def _load_weight(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    conv.load_state_dict({'weight': torch.randn(4, 3, 3, 3)})


def _load_by_assignment(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    norm.load_state_dict(random_frozen(4).state_dict(), assign=True)


def _change_statistic(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    norm.running_var.mul_(4)


def _change_weight(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    with torch.no_grad():
        conv.weight.add_(1)


def _replace_weight(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    conv.weight = nn.Parameter(torch.randn(4, 3, 3, 3), requires_grad=False)


def _swap_data_then_switch_mode(conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
    conv.weight.data.copy_(torch.randn(4, 3, 3, 3))  # invisible to the tensor's version
    norm.eval()


@pytest.mark.parametrize(
    'change',
    [
        _load,
        _load_weight,
        _load_by_assignment,
        _change_statistic,
        _change_weight,
        _replace_weight,
        _swap_data_then_switch_mode,
    ],
)
def test_folding_follows_every_change(change: Callable[[nn.Conv2d, FrozenBatchNorm2d], None]) -> None:
    conv, norm = frozen_pair()
    x = torch.randn(2, 3, 6, 6)
    before = conv_norm(x, conv, norm)
    torch.testing.assert_close(before, unfused(x, conv, norm), atol=1e-5, rtol=1e-5)
    change(conv, norm)
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
def test_copies_do_not_share_what_was_folded(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    pair = nn.ModuleList(frozen_pair())
    x = torch.randn(1, 3, 5, 5)
    original = conv_norm(x, *pair)
    conv, norm = duplicate(pair)
    torch.testing.assert_close(conv_norm(x, conv, norm), original)
    with torch.no_grad():
        norm.bias.add_(1)
    torch.testing.assert_close(conv_norm(x, conv, norm), original + 1)
    torch.testing.assert_close(conv_norm(x, *pair), original)


def test_what_was_folded_is_not_pickled() -> None:
    conv, norm = frozen_pair()
    before = len(pickle.dumps(norm))
    norm.fold_into(conv.weight)
    assert len(pickle.dumps(norm)) == before


def test_what_was_folded_in_inference_mode_serves_training() -> None:
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
