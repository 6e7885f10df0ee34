"""RoIAlign against loops and torchvision. Runs with the extension and without (see test_both_ways.py)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import ops as torchvision_ops

from frdet import ops
from tests.ops import reference
from tests.ops.boxes import DEVICES, random_boxes, random_rois

# What the result may differ by: the rounding of the dtype, on numbers of size 1.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
LAYOUTS = ['contiguous', 'channels_last', 'cropped', 'strided channels']
SIZE = (3, 2)
SCALE = 0.125


def lay_out(x: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout."""
    if layout == 'channels_last':
        return x.contiguous(memory_format=torch.channels_last)
    if layout == 'cropped':  # a view into a larger channels_last map
        return torch.nn.functional.pad(lay_out(x, 'channels_last'), (1, 2, 3, 1))[..., 3:-1, 1:-2]
    if layout == 'strided channels':
        return x.repeat_interleave(2, dim=1)[:, ::2]
    return x


def features(dtype: torch.dtype, channels: int = 19, height: int = 13, width: int = 17) -> Tensor:
    return torch.randn(2, channels, height, width).to(dtype)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_values_and_gradients_are_the_loops(
    device: str, dtype: torch.dtype, layout: str, aligned: bool, sampling_ratio: int
) -> None:
    x = features(dtype)
    rois = random_rois(6, 2).to(torch.float64 if dtype == torch.float64 else torch.float32)
    exact = x.clone().double().requires_grad_()
    expected = reference.roi_align(exact, rois, SIZE, SCALE, sampling_ratio, aligned)
    grad = torch.randn(expected.shape).to(dtype)
    expected.backward(grad.double())

    given_x = lay_out(x.to(device), layout).detach().requires_grad_()
    found = ops.roi_align(given_x, rois.to(device), SIZE, SCALE, sampling_ratio, aligned)
    found.backward(grad.to(device))
    tolerance = TOLERANCE[dtype]
    assert found.dtype == dtype and found.is_contiguous()
    torch.testing.assert_close(found.double().cpu(), expected.detach(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(given_x.grad.double().cpu(), exact.grad, rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('channels', [1, 3, 16, 64, 200])
@pytest.mark.parametrize('size', [(1, 1), (7, 7), (14, 14), (2, 9)])
@pytest.mark.parametrize('sampling_ratio', [-1, 1, 5])
def test_values_and_gradients_are_torchvisions(
    device: str, channels: int, size: tuple[int, int], sampling_ratio: int
) -> None:
    x = torch.randn(2, channels, 25, 38, device=device).contiguous(memory_format=torch.channels_last)
    rois = random_rois(6, 2, low=1.0, high=180.0, size=250.0).to(device)
    for aligned in (True, False):
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        found = ops.roi_align(ours, rois, size, SCALE, sampling_ratio, aligned)
        expected = torchvision_ops.roi_align(theirs, rois, size, SCALE, sampling_ratio, aligned)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        grad = torch.randn_like(expected)
        found.backward(grad)
        expected.backward(grad)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_by_hand() -> None:
    # One bin, one sample in the middle (1.5, 1.5) of a 4 x 4 ramp 0 ... 15: the mean of 5, 6, 9, 10. Aligned is half a
    # pixel up and left: the value of pixel (1, 1).
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    roi = torch.tensor([[0.0, 0, 0, 3, 3]])
    assert ops.roi_align(x, roi, 1, 1.0, 1, False).item() == 7.5
    assert ops.roi_align(x, roi, 1, 1.0, 1, True).item() == 5.0


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_rois_at_the_border(device: str, sampling_ratio: int, aligned: bool) -> None:
    """Samples up to one pixel off the map take the border's value, others 0; empty and inverted RoIs."""
    x = torch.randn(1, 5, 6, 8)
    corners = [
        [-3, -3, 3, 3], [5, 4, 11, 9], [-1, -1, -0.5, -0.5], [-1.0001, 2, 0, 4], [7, 5, 8, 6], [8, 6, 9, 7],
        [9.5, 7.5, 12, 12], [-50, -50, -40, -40], [-20, -20, 30, 30], [3, 3, 3, 3], [3, 3, 2, 2], [4, 1, 2, 5],
        [2, 2, 2.001, 2.001], [0, 0, 8, 6], [-0.5, -0.5, 7.5, 5.5],
    ]  # fmt: skip
    rois = torch.tensor([[0, *corner] for corner in corners], dtype=torch.float32)
    exact = x.double().requires_grad_()
    expected = reference.roi_align(exact, rois, (2, 3), 1.0, sampling_ratio, aligned)
    expected.sum().backward()
    given_x = x.to(device).requires_grad_()
    found = ops.roi_align(given_x, rois.to(device), (2, 3), 1.0, sampling_ratio, aligned)
    found.sum().backward()
    torch.testing.assert_close(found.double().cpu(), expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(given_x.grad.double().cpu(), exact.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('map_size', [(1, 1), (1, 7), (5, 1)])
def test_tiny_maps(device: str, map_size: tuple[int, int]) -> None:
    x = torch.randn(2, 4, *map_size, device=device)
    rois = random_rois(8, 2, low=1.0, high=9.0, size=10.0).to(device)
    for ratio in (0, 2):
        expected = torchvision_ops.roi_align(x, rois, 3, 0.5, ratio, True)
        torch.testing.assert_close(ops.roi_align(x, rois, 3, 0.5, ratio, True), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('device', DEVICES)
def test_rois_that_are_not_finite_give_zeros(device: str) -> None:
    x = torch.randn(1, 3, 8, 8, device=device, requires_grad=True)
    rois = torch.tensor([[0.0, 1, 1, 6, 6]]).repeat(8, 1)
    for i, value in enumerate([float('nan'), float('inf')]):
        for corner in range(4):
            rois[4 * i + corner, 1 + corner] = value
    for ratio in (0, 2):
        pooled = ops.roi_align(x, rois.to(device), 2, 1.0, ratio, True)
        assert pooled.eq(0).all()
        (grad,) = torch.autograd.grad(pooled.sum(), x)
        assert grad.eq(0).all()


@pytest.mark.parametrize('device', DEVICES)
def test_nothing_in_nothing_out(device: str) -> None:
    x = torch.randn(2, 3, 8, 8, device=device, requires_grad=True)
    pooled = ops.roi_align(x, torch.zeros(0, 5, device=device), 7)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert x.grad is not None and x.grad.eq(0).all()
    empty = torch.zeros(0, 3, 8, 8, device=device)
    assert ops.roi_align(empty, torch.zeros(0, 5, device=device), 2).shape == (0, 3, 2, 2)
    levels = [x, x[..., ::2, ::2]]
    assert ops.multiscale_roi_align(levels, torch.zeros(0, 5, device=device), 2, [1, 0.5]).shape == (0, 3, 2, 2)


def test_boxes_as_a_list() -> None:
    x = torch.randn(3, 4, 10, 10)
    boxes = [random_boxes(2, size=80.0), torch.zeros(0, 4), random_boxes(3, size=80.0)]
    found = ops.roi_align(x, boxes, (2, 3), SCALE, 2, True)
    torch.testing.assert_close(found, torchvision_ops.roi_align(x, boxes, (2, 3), SCALE, 2, True), rtol=1e-5, atol=1e-5)


def test_half_rois_are_taken_for_what_they_are() -> None:
    x, rois = torch.randn(2, 4, 10, 10), random_rois(5, 2).bfloat16()
    assert ops.roi_align(x, rois, 2, SCALE).equal(ops.roi_align(x, rois.float(), 2, SCALE))


@pytest.mark.parametrize('sampling_ratio', [0, 1, 2])
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_gradcheck(sampling_ratio: int, layout: str) -> None:
    x = lay_out(torch.randn(2, 3, 5, 6, dtype=torch.float64), layout).requires_grad_()
    rois = random_rois(4, 2, low=5.0, high=30.0, size=45.0).double()
    for aligned in (True, False):
        assert torch.autograd.gradcheck(lambda x, a=aligned: ops.roi_align(x, rois, 2, SCALE, sampling_ratio, a), x)


# ---- several levels ------------------------------------------------------------------------------------------------


def pyramid(dtype: torch.dtype = torch.float32, channels: int = 5) -> tuple[list[Tensor], list[float]]:
    sizes = (32, 16, 8, 4)
    return [torch.randn(2, channels, s, s + 3).to(dtype) for s in sizes], [1 / 4, 1 / 8, 1 / 16, 1 / 32]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', list(TOLERANCE))
@pytest.mark.parametrize('layout', LAYOUTS)
def test_levels_are_the_loops(device: str, dtype: torch.dtype, layout: str) -> None:
    maps, scales = pyramid(dtype)
    # Canonical size 28 has the levels begin at sides of 14, 28 and 56.
    sides = 4 * 28 ** torch.rand(24, 1)
    corner = torch.rand(24, 2) * (128 - sides)
    rois = torch.cat([torch.arange(24)[:, None] % 2, corner, corner + sides], dim=1)
    level = [reference.level_of(roi[1:], 4, canonical_size=28) for roi in rois.tolist()]
    assert set(level) == {0, 1, 2, 3}
    exact = [x.clone().double().requires_grad_() for x in maps]
    expected = torch.cat(
        [
            reference.roi_align(exact[at], rois[k : k + 1], SIZE, scales[at], 2, True)
            for k, at in enumerate(level)
        ]
    )  # fmt: skip
    expected.sum().backward()

    given_maps = [lay_out(x.to(device), layout).detach().requires_grad_() for x in maps]
    given_rois = rois.to(device, torch.float64) if dtype == torch.float64 else rois.to(device)
    found = ops.multiscale_roi_align(given_maps, given_rois, SIZE, scales, 2, True, canonical_size=28.0)
    found.sum().backward()
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(found.double().cpu(), expected.detach(), rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(given_maps, exact, strict=True):
        torch.testing.assert_close(ours.grad.double().cpu(), theirs.grad, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize('device', DEVICES)
def test_levels_at_their_borders(device: str) -> None:
    """Squares whose side is 224 times a power of two, and a little less or more: constant maps tell the level."""
    maps = [torch.full((1, 1, 4, 4), float(i), device=device) for i in range(4)]
    sides = [side * factor for side in (28, 56, 112, 224, 448, 896, 1792) for factor in (1 - 1e-3, 1, 1 + 1e-3)]
    rois = torch.tensor([[0, 0, 0, side, side] for side in sides], device=device)
    # 112 is 224 / 2: level 3, the second map; 1e-3 less is level 2, the first.
    expected = [0] * 6 + [0, 1, 1] + [1, 2, 2] + [2, 3, 3] + [3] * 6
    found = ops.multiscale_roi_align(maps, rois, 1, [1e-3] * 4, 1, True)
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_levels_of_strange_boxes() -> None:
    """Empty and inverted boxes are small: the finest level. Endless ones give zeros."""
    maps = [torch.full((1, 1, 4, 4), float(i + 1)) for i in range(3)]
    inf = float('inf')
    rois = torch.tensor([[0.0, 2, 2, 2, 2], [0, 3, 2, 2, 3], [0, 0, 0, inf, inf], [0, 0, float('nan'), 1, 1]])
    found = ops.multiscale_roi_align(maps, rois, 1, [0.5, 0.25, 0.125], 1, True)
    assert found.flatten().tolist() == [1, 1, 0, 0]


def test_one_level_is_roi_align() -> None:
    x, rois = torch.randn(2, 4, 10, 10), random_rois(9, 2)
    found = ops.multiscale_roi_align([x], rois, 3, [SCALE], 2, True)
    assert found.equal(ops.roi_align(x, rois, 3, SCALE, 2, True))


def test_gradcheck_of_levels() -> None:
    maps = [torch.randn(2, 2, s, s, dtype=torch.float64, requires_grad=True) for s in (8, 4)]
    rois = torch.tensor([[0, 2, 3, 20, 25], [1, 0, 0, 31, 30], [0, 5, 1, 9, 9.5]], dtype=torch.float64)

    def pool(*maps: Tensor) -> Tensor:
        return ops.multiscale_roi_align(list(maps), rois, 2, [0.25, 0.125], 0, True, canonical_size=28.0)

    assert torch.autograd.gradcheck(pool, maps)


# ---- properties ----------------------------------------------------------------------------------------------------


@st.composite
def any_roi(draw: st.DrawFn) -> list[float]:
    """Any place and size. Not inverted: torchvision fails on a RoI that is so in one direction."""
    x, y = draw(st.floats(-40, 120, width=32)), draw(st.floats(-40, 120, width=32))
    width, height = draw(st.floats(0, 130, width=32)), draw(st.floats(0, 130, width=32))
    return [draw(st.integers(0, 1)), x, y, x + width, y + height]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(any_roi(), min_size=1, max_size=6),
    st.integers(0, 4),
    st.booleans(),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_any_roi_is_torchvisions(
    rows: list[list[float]], sampling_ratio: int, aligned: bool, size: tuple[int, int]
) -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 12), torch.linspace(0, 1, 9), indexing='ij')
    maps = torch.stack([torch.stack([y, x, y * x]), torch.stack([x, y, 1 - y])])
    rois = torch.tensor(rows, dtype=torch.float32)
    found = ops.roi_align(maps, rois, size, 0.125, sampling_ratio, aligned)
    expected = torchvision_ops.roi_align(maps, rois, size, 0.125, sampling_ratio, aligned)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
