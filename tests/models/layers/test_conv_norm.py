import math

import pytest
import torch
from torch import nn

from frdet.models.layers import ConvNorm, FrozenBatchNorm2d, conv_norm


def randomise(norm: nn.Module) -> None:
    """Statistics and affine parameters that leave no error unseen."""
    for name, tensor in norm.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if name == 'running_var' else torch.randn_like(tensor))


@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=1),
        dict(kernel_size=3, padding=1, stride=2),
        dict(kernel_size=3, padding=2, dilation=2, groups=2),
    ],
)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_folding_equals_the_two_layers(arguments: dict, memory_format: torch.memory_format) -> None:
    """Values, and gradients of the weight and of the input, against torch's batch norm in evaluation mode."""
    conv = nn.Conv2d(4, 6, bias=False, **arguments).double().to(memory_format=memory_format)
    reference_norm = nn.BatchNorm2d(6).double().eval()
    randomise(reference_norm)
    norm = FrozenBatchNorm2d(6).double()
    norm.load_state_dict(reference_norm.state_dict())

    results = []
    for layers in (lambda x: conv_norm(x, conv, norm), lambda x: reference_norm(conv(x))):
        torch.manual_seed(1)
        x = torch.randn(2, 4, 7, 6, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
        conv.weight.grad = None
        y = layers(x)
        (y * torch.randn_like(y)).sum().backward()
        results.append((y.detach(), conv.weight.grad, x.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)


def test_a_bias_before_the_norm_is_not_lost() -> None:
    conv, norm = nn.Conv2d(2, 3, 1), FrozenBatchNorm2d(3)
    randomise(norm)
    nn.init.constant_(conv.bias, 5.0)
    x = torch.randn(1, 2, 4, 4)
    torch.testing.assert_close(conv_norm(x, conv, norm), norm(conv(x)))


def test_other_norms_are_applied_as_they_are() -> None:
    conv, norm = nn.Conv2d(2, 4, 3, bias=False), nn.GroupNorm(2, 4)
    randomise(norm)
    x = torch.randn(2, 2, 5, 5)
    torch.testing.assert_close(conv_norm(x, conv, norm), norm(conv(x)))


def test_layer_without_norm_has_a_bias() -> None:
    layer = ConvNorm(3, 5, 3)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        'conv.weight': (5, 3, 3, 3),
        'conv.bias': (5,),
    }
    assert layer.conv.bias.eq(0).all()
    x = torch.randn(1, 3, 6, 4)
    assert layer(x).shape == (1, 5, 6, 4)
    torch.testing.assert_close(layer(x), nn.functional.conv2d(x, layer.conv.weight, padding=1))


def test_layer_with_norm_has_none() -> None:
    layer = ConvNorm(3, 4, 1, norm=dict(type='GN', num_groups=2))
    assert sorted(name for name, _ in layer.named_parameters()) == ['bn.bias', 'bn.weight', 'conv.weight']
    x = torch.randn(2, 3, 5, 5)
    expected = nn.functional.group_norm(nn.functional.conv2d(x, layer.conv.weight), 2)
    torch.testing.assert_close(layer(x), expected)


def test_weights_start_as_caffe2s_xavier() -> None:
    """Uniform with variance 1 / fan-in: the bound is sqrt(3 / fan-in)."""
    weight = ConvNorm(64, 64, 3).conv.weight.detach()
    bound = math.sqrt(3 / (64 * 9))
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.999 * bound
    assert weight.std().item() == pytest.approx(math.sqrt(1 / (64 * 9)), rel=0.02)


@pytest.mark.parametrize(('norm', 'bias', 'has_bias'), [(None, False, True), ('BN', False, False), ('BN', True, True)])
def test_a_convolution_without_a_norm_has_a_bias(norm: str | None, bias: bool, has_bias: bool) -> None:
    layer = ConvNorm(2, 3, 3, norm=norm and dict(type=norm), bias=bias)
    assert (layer.conv.bias is not None) == has_bias
    assert not has_bias or layer.conv.bias.eq(0).all()
