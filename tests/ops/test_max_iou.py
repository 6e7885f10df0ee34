"""Matching against loops. Runs with the extension and without (see test_both_ways.py)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import ops as torchvision_ops

from frdet import ops
from tests.ops import reference
from tests.ops.boxes import DEVICES, random_boxes


def check(boxes: Tensor, gt_boxes: Tensor, valid: Tensor, min_gt_iou: float, device: str = 'cpu') -> None:
    found = ops.max_iou(boxes.to(device), gt_boxes.to(device), valid.to(device), min_gt_iou)
    for b in range(len(gt_boxes)):
        image_boxes = boxes if boxes.dim() == 2 else boxes[b]
        iou, index, gt_iou, best_of = reference.max_iou(image_boxes, gt_boxes[b], valid[b], min_gt_iou)
        assert found.iou[b].tolist() == iou  # to the last bit
        assert found.index[b].tolist() == index
        assert found.gt_iou[b].tolist() == gt_iou
        assert found.best_of[b].tolist() == best_of


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize(('count', 'num_gt'), [(1, 1), (15, 3), (16, 16), (17, 17), (100, 33), (5, 0), (0, 4)])
@pytest.mark.parametrize('min_gt_iou', [0.0, 0.3])
def test_max_iou_is_the_loop(device: str, shared: bool, count: int, num_gt: int, min_gt_iou: float) -> None:
    boxes = random_boxes(count) if shared else random_boxes(3 * count).reshape(3, count, 4)
    gt_boxes = random_boxes(3 * num_gt).reshape(3, num_gt, 4)
    valid = torch.rand(3, num_gt) < 0.7
    valid[1:2] = False
    check(boxes, gt_boxes, valid, min_gt_iou, device)


def test_by_hand() -> None:
    # With gt 0 (area 4): box 0 is it, IoU 1; box 1 shares 2 of 4 + 4 - 2: 1/3. With gt 1, area 4 at (10, 10): box 2
    # shares 2 of 4 + 2 - 2: 1/2, box 3 the same: both attain its best. Box 4 meets none.
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [10, 10, 12, 11], [10, 11, 12, 12], [50, 50, 51, 51]])
    gt_boxes = torch.tensor([[0.0, 0, 2, 2], [10, 10, 12, 12]])
    found = ops.max_iou(boxes, gt_boxes)
    assert found.iou.tolist() == pytest.approx([1, 1 / 3, 0.5, 0.5, 0])
    assert found.index.tolist() == [0, 0, 1, 1, 0]
    assert found.gt_iou.tolist() == [1, 0.5]
    assert found.best_of.tolist() == [0, -1, 1, 1, -1]
    assert ops.max_iou(boxes, gt_boxes, None, 0.6).best_of.tolist() == [0, -1, -1, -1, -1]


def test_ties() -> None:
    """Of equal ground truths the first is the match, and the last is the one whose best the box is."""
    boxes = torch.tensor([[0.0, 0, 2, 2]])
    found = ops.max_iou(boxes, boxes.repeat(40, 1))
    assert (found.index.item(), found.best_of.item()) == (0, 39)


@pytest.mark.parametrize('device', DEVICES)
def test_many_boxes_are_torchvisions(device: str) -> None:
    """More than one chunk of boxes, with ground truths whose best lies in different ones."""
    boxes, gt_boxes = random_boxes(7001).to(device), random_boxes(70).to(device)
    table = torchvision_ops.box_iou(gt_boxes, boxes)
    found = ops.max_iou(boxes, gt_boxes)
    torch.testing.assert_close(found.iou, table.amax(dim=0))
    torch.testing.assert_close(found.gt_iou, table.amax(dim=1))
    assert found.best_of[table.argmax(dim=1)].ge(0).all()


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_compared_in_float32(dtype: torch.dtype) -> None:
    boxes, gt_boxes = random_boxes(30).to(dtype), random_boxes(5).to(dtype)
    found = ops.max_iou(boxes, gt_boxes)
    expected = ops.max_iou(boxes.float(), gt_boxes.float())
    assert all(a.equal(b) for a, b in zip(found, expected, strict=True))


def test_strided_boxes() -> None:
    boxes, gt_boxes = random_boxes(40), random_boxes(6)
    found = ops.max_iou(boxes.repeat_interleave(2, dim=0)[::2], gt_boxes.t().contiguous().t())
    assert all(a.equal(b) for a, b in zip(found, ops.max_iou(boxes, gt_boxes), strict=True))


def test_bad_numbers_match_nothing() -> None:
    nan, inf = float('nan'), float('inf')
    strange = torch.tensor([[nan, 0, 9, 9], [0, 0, 9, nan], [9, 9, 0, 0], [5, 5, 5, 5], [-inf, -inf, inf, inf]])
    found = ops.max_iou(strange, torch.cat([strange, torch.tensor([[0.0, 0, 9, 9]])]))
    assert found.iou.tolist() == [0] * 5
    assert found.best_of.tolist() == [-1] * 5
    assert found.gt_iou.tolist() == [0] * 6


@st.composite
def boxes_on_a_grid(draw: st.DrawFn, most: int) -> Tensor:
    number = st.integers(0, 5)
    rows = draw(st.lists(st.tuples(number, number, number, number), min_size=1, max_size=most))
    table = torch.tensor(rows, dtype=torch.float32)
    return torch.cat([table[:, :2], table[:, :2] + table[:, 2:]], dim=1)


@settings(deadline=None, max_examples=100)
@given(boxes_on_a_grid(40), boxes_on_a_grid(20), st.sampled_from([0.0, 0.25, 0.5]), st.randoms(use_true_random=False))
def test_max_iou_is_the_loop_on_a_grid(boxes: Tensor, gt_boxes: Tensor, min_gt_iou: float, random: object) -> None:
    valid = torch.tensor([[random.random() < 0.8 for _ in range(len(gt_boxes))]])  # type: ignore[attr-defined]
    check(boxes, gt_boxes[None], valid, min_gt_iou)
