"""NMS against loops and torchvision. Runs with the extension and without (see test_both_ways.py)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import ops as torchvision_ops

from frdet import ops
from tests.ops import reference
from tests.ops.boxes import DEVICES, random_boxes

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('layout', ['contiguous', 'strided', 'transposed'])
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.7])
def test_nms_is_the_loop(device: str, dtype: torch.dtype, layout: str, threshold: float) -> None:
    boxes, scores = random_boxes(60).to(device, dtype), torch.rand(60).to(device, dtype)
    expected = reference.nms(boxes, scores, threshold)
    if layout == 'strided':
        boxes, scores = boxes.repeat_interleave(2, dim=0)[::2], scores.repeat_interleave(3)[::3]
    elif layout == 'transposed':
        boxes = boxes.t().contiguous().t()
    assert ops.nms(boxes, scores, threshold).cpu().equal(expected)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('count', [0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 300, 2000])
@pytest.mark.parametrize('threshold', [-0.5, 0.0, 0.5, 0.7, 1.0, 1.5])
def test_nms_is_torchvisions_at_every_size(device: str, count: int, threshold: float) -> None:
    boxes, scores = random_boxes(count).to(device), torch.rand(count, device=device)
    kept = ops.nms(boxes, scores, threshold)
    assert kept.dtype == torch.int64
    assert kept.equal(torchvision_ops.nms(boxes, scores, threshold))


@pytest.mark.parametrize('device', DEVICES)
def test_crowded_boxes(device: str) -> None:
    boxes, scores = random_boxes(1500, 50, 60, 80).to(device), torch.rand(1500, device=device)
    assert ops.nms(boxes, scores, 0.6).equal(torchvision_ops.nms(boxes, scores, 0.6))


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('threshold', [0.1, 0.3, 0.5, 0.7, 1 / 3])
def test_boxes_at_the_threshold(device: str, dtype: torch.dtype, threshold: float) -> None:
    """Pairs whose IoU is the threshold in real numbers: rounding alone decides, and must do so as in torchvision."""
    # Two boxes of side 1, one shifted by d, have IoU (1 - d) / (1 + d), which is t for d = (1 - t) / (1 + t).
    shift = (1 - threshold) / (1 + threshold)
    scale = torch.rand(2000, 1, dtype=torch.float64) * 100 + 1
    corner = torch.rand(2000, 2, dtype=torch.float64) * 50 + 200 * torch.arange(2000)[:, None]
    first = torch.cat([corner, corner + scale], dim=1)
    second = first + torch.tensor([1.0, 0, 1, 0]) * scale * shift
    boxes = torch.cat([first, second]).to(device, dtype)
    scores = torch.rand(4000, device=device, dtype=dtype)
    kept = ops.nms(boxes, scores, threshold)
    assert kept.equal(torchvision_ops.nms(boxes, scores, threshold))
    assert 2000 < len(kept) < 4000  # both outcomes occur


def test_equality_with_the_threshold_keeps() -> None:
    # Areas 1 and 2, intersection 1: IoU is 0.5, exactly, in any binary format.
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 1]])
    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.4999).tolist() == [0]


@pytest.mark.parametrize('device', DEVICES)
def test_ties_keep_the_input_order(device: str) -> None:
    boxes = random_boxes(500).to(device)
    scores = torch.randint(0, 4, (500,), device=device) / 4
    scores[::7] = -0.0  # equal to 0
    assert ops.nms(boxes, scores, 0.3).cpu().equal(reference.nms(boxes, scores, 0.3))


def test_bad_numbers() -> None:
    """A box with NaN neither suppresses nor is suppressed; nor does an empty or an inverted one."""
    nan, inf = float('nan'), float('inf')
    strange = [[nan, 0, 9, 9], [0, nan, 9, 9], [0, 0, nan, 9], [0, 0, 9, nan], [nan] * 4, [5, 5, 5, 5], [9, 9, 1, 1]]
    boxes = torch.tensor([*strange, [-inf, 0, inf, 9], [0, 0, 9, 9], [0, 0, 9, 9.5]] * 30)
    scores = torch.linspace(1, 0, len(boxes))
    kept = ops.nms(boxes, scores, 0.5)
    assert kept.equal(torchvision_ops.nms(boxes, scores, 0.5))
    assert set(kept.tolist()) >= {i for i in range(300) if i % 10 < 7}
    assert 8 in kept and 9 not in kept


def test_nan_scores_come_first() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 30, 30]])
    assert ops.nms(boxes, torch.tensor([0.5, float('nan'), 0.9]), 0.5).tolist() == [1, 2]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('groups', [1, 3, 40])
def test_batched_nms_is_the_loop(device: str, dtype: torch.dtype, groups: int) -> None:
    boxes, scores = random_boxes(150, 10, 60, 80).to(device, dtype), torch.rand(150).to(device, dtype)
    idxs = torch.randint(-2, groups - 2, (150,), device=device)
    expected = reference.batched_nms(boxes, scores, idxs, 0.4)
    assert ops.batched_nms(boxes, scores, idxs, 0.4).cpu().equal(expected)
    assert ops.batched_nms(boxes, scores, idxs.int(), 0.4).cpu().equal(expected)
    mask = ops.batched_nms_mask(boxes, scores, idxs, 0.4)
    assert mask.dtype == torch.bool
    assert mask.nonzero().squeeze(1).cpu().equal(expected.sort().values)


@pytest.mark.parametrize('device', DEVICES)
def test_many_groups_are_torchvisions(device: str) -> None:
    """Above 1000 boxes torchvision goes group by group, without shifting them: the same numbers as here."""
    # No two scores are equal: its sort at the end is not a stable one.
    boxes, scores = random_boxes(9000).to(device), torch.randperm(9000, device=device).float()
    idxs = torch.randint(0, 80, (9000,), device=device)
    assert ops.batched_nms(boxes, scores, idxs, 0.5).equal(torchvision_ops.batched_nms(boxes, scores, idxs, 0.5))


@pytest.mark.parametrize('device', DEVICES)
def test_the_mask_leaves_out_the_lowest_score(device: str) -> None:
    # The first would suppress the second, but its score is -inf; -1e30 is a score like any other.
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [50, 50, 60, 60]], device=device)
    scores = torch.tensor([float('-inf'), -1e30, float('inf')], device=device)
    idxs = torch.zeros(3, dtype=torch.int64, device=device)
    assert ops.batched_nms_mask(boxes, scores, idxs, 0.5).tolist() == [False, True, True]
    assert ops.batched_nms_mask(boxes, scores.fill_(float('-inf')), idxs, 0.5).tolist() == [False] * 3


@pytest.mark.parametrize('device', DEVICES)
def test_nothing_in_nothing_out(device: str) -> None:
    boxes, scores = torch.zeros(0, 4, device=device), torch.zeros(0, device=device)
    idxs = torch.zeros(0, dtype=torch.int64, device=device)
    assert ops.nms(boxes, scores, 0.5).shape == (0,)
    assert ops.batched_nms(boxes, scores, idxs, 0.5).shape == (0,)
    assert ops.batched_nms_mask(boxes, scores, idxs, 0.5).shape == (0,)


@st.composite
def boxes_on_a_grid(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Small whole numbers: equal boxes, equal scores, shared edges and simple IoUs are frequent."""
    number = st.integers(0, 6)
    rows = draw(st.lists(st.tuples(number, number, number, number, st.integers(0, 3)), max_size=40))
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return torch.cat([table[:, :2], table[:, :2] + table[:, 2:4]], dim=1), table[:, 4]


@settings(deadline=None, max_examples=150)
@given(boxes_on_a_grid(), st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.75, 1.0]))
def test_nms_is_torchvisions_on_a_grid(given_boxes: tuple[Tensor, Tensor], threshold: float) -> None:
    boxes, scores = given_boxes
    assert ops.nms(boxes, scores, threshold).equal(torchvision_ops.nms(boxes, scores, threshold))
    kept = ops.batched_nms(boxes, scores, scores.long(), threshold)
    assert kept.equal(reference.batched_nms(boxes, scores, scores.long(), threshold))
