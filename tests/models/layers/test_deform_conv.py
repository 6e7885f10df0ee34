"""DCNv2 against a loop over single samples, written from the paper."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.models.layers import FrozenBatchNorm2d, ModulatedDeformConv2d, conv_norm


def make(deform_groups: int = 1, stride: int = 1, bias: bool = False) -> ModulatedDeformConv2d:
    """Offsets of a pixel or two, some of them outside of the map."""
    conv = ModulatedDeformConv2d(4, 3, 3, stride=stride, padding=1, bias=bias, deform_groups=deform_groups)
    nn.init.normal_(conv.conv_offset.weight, std=0.3)
    nn.init.normal_(conv.conv_offset.bias)
    return conv


def at(plane: Tensor, y: float, x: float) -> float:
    """Bilinear; outside of the map are zeros."""
    height, width = plane.shape
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row, column].item()
    return total


def slow(conv: ModulatedDeformConv2d, x: Tensor, groups: int) -> Tensor:
    """Equation 1. Channels of the offsets: y and x of each of 9 samples, group by group; then 9 factors a group."""
    given = F.conv2d(x, conv.conv_offset.weight, conv.conv_offset.bias, conv.stride, conv.padding)[0]
    offsets = given[: 18 * groups].unflatten(0, (groups, 9, 2)).tolist()
    factors = given[18 * groups :].unflatten(0, (groups, 9)).tolist()
    height, width = given.shape[1:]
    out = torch.zeros(conv.out_channels, height, width)
    for row in range(height):
        for column in range(width):
            for channel in range(x.shape[1]):
                group = channel * groups // x.shape[1]
                for sample in range(9):
                    dy, dx = (offsets[group][sample][axis][row][column] for axis in (0, 1))
                    y = row * conv.stride[0] - 1 + sample // 3 + dy
                    across = column * conv.stride[1] - 1 + sample % 3 + dx
                    factor = 1 / (1 + math.exp(-factors[group][sample][row][column]))
                    value = at(x[0, channel], y, across) * factor
                    out[:, row, column] += value * conv.weight[:, channel, sample // 3, sample % 3]
    return out[None] if conv.bias is None else out[None] + conv.bias[:, None, None]


@pytest.mark.parametrize(('groups', 'stride', 'bias'), [(1, 1, False), (2, 2, True)])
@torch.no_grad()
def test_values_of_a_slow_loop(groups: int, stride: int, bias: bool) -> None:
    conv, x = make(groups, stride, bias), torch.randn(1, 4, 5, 6)
    torch.testing.assert_close(conv(x), slow(conv, x, groups), atol=1e-5, rtol=1e-5)


def test_it_starts_as_half_a_convolution_and_learns_offsets() -> None:
    conv, x = ModulatedDeformConv2d(4, 3, 3, padding=1, bias=False), torch.randn(2, 4, 5, 6)
    out = conv(x)
    torch.testing.assert_close(out, F.conv2d(x, conv.weight, padding=1) / 2)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.ne(0).any() for p in conv.parameters())


def test_a_frozen_norm_is_folded() -> None:
    norm = FrozenBatchNorm2d(3)
    for name, tensor in norm.named_buffers():
        nn.init.uniform_(tensor, 0.5, 2) if name != 'bias' else nn.init.normal_(tensor)
    conv, x = make(), torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(conv_norm(x, conv, norm), norm(conv(x)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_it_computes_in_float32_under_autocast() -> None:
    """Only the result is rounded to the input's bfloat16."""
    conv, x = make(), torch.randn(2, 4, 5, 6).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        found = conv(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, conv(x.float()).bfloat16())


def test_double_stays_double() -> None:
    assert make().double()(torch.randn(1, 4, 5, 6).double()).dtype == torch.float64
