"""Boxes and scores of any values, NaN, infinite, huge and none: the loops' results. See test_both_ways.py."""

import math

import numpy as np
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from frdet import ops
from tests.ops import reference

SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, 1e-20, 3e18, 1e19, 2e19, 3.4e38, -3.4e38, 16777217.0]
coordinates = st.one_of(st.integers(-4, 12).map(float), st.floats(width=32), st.sampled_from(SPECIAL))
thresholds = st.sampled_from([0.0, 0.3, 0.5, 1.0])


@st.composite
def any_boxes(draw: st.DrawFn, max_count: int = 24) -> Tensor:
    """(N, 4), few of them in order."""
    rows = draw(st.lists(st.tuples(*[coordinates] * 4), max_size=max_count))
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


@st.composite
def scored(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    boxes = draw(any_boxes())
    count = len(boxes)
    scores = draw(st.lists(st.one_of(st.integers(0, 4).map(float), coordinates), min_size=count, max_size=count))
    groups = draw(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2), min_size=count, max_size=count))
    return boxes, torch.tensor(scores, dtype=torch.float32), torch.tensor(groups, dtype=torch.int64)


def loop(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> list[int]:
    """Greedy NMS group by group, kept boxes in order of score: NaN first, equal ones as given."""
    ranks = [(0, 0.0) if math.isnan(score) else (1, -score) for score in scores.tolist()]
    order = sorted(range(len(boxes)), key=lambda i: (ranks[i], i))
    table, kept = boxes.numpy(), []
    with np.errstate(all='ignore'):
        for i in order:
            # As float: NumPy would round the threshold to float32, and torchvision's CPU kernel does not.
            if not any(groups[i] == groups[k] and float(reference.iou(table[i], table[k])) > threshold for k in kept):
                kept.append(i)
    return kept


@given(scored(), thresholds)
@example((torch.zeros(3, 4), torch.tensor([0, -math.inf, -3.4028235e38]), torch.zeros(3, dtype=torch.int64)), 0.0)
@example((torch.tensor([[3.0, 0, 10, 3], [3, 0, 10, 10]]), torch.zeros(2), torch.zeros(2).long()), 0.3)  # 21 / 70
def test_nms(given_boxes: tuple[Tensor, Tensor, Tensor], threshold: float) -> None:
    boxes, scores, groups = given_boxes
    assert ops.nms(boxes, scores, threshold).tolist() == loop(boxes, scores, torch.zeros_like(groups), threshold)
    assert ops.batched_nms(boxes, scores, groups, threshold).tolist() == loop(boxes, scores, groups, threshold)
    there = scores != -math.inf
    mask = ops.batched_nms_mask(boxes, scores, groups, threshold)
    expected = loop(boxes[there], scores[there], groups[there], threshold)
    assert mask.nonzero()[:, 0].tolist() == sorted(there.nonzero()[:, 0][expected].tolist())


@given(any_boxes(), any_boxes(8))
def test_max_iou(boxes: Tensor, gt_boxes: Tensor) -> None:
    match = ops.max_iou(boxes, gt_boxes)
    with np.errstate(all='ignore'):
        table = np.array([[reference.iou(b, g) for g in gt_boxes.numpy()] for b in boxes.numpy()], dtype=np.float32)
    best = np.nan_to_num(table.reshape(len(boxes), len(gt_boxes)), nan=0.0).max(axis=1, initial=0)
    np.testing.assert_allclose(match.iou.numpy(), best, rtol=1e-6)
    assert ((match.index >= 0) & (match.index < max(len(gt_boxes), 1))).all()
    assert ((match.best_of >= -1) & (match.best_of < len(gt_boxes))).all()


@given(any_boxes(), st.sampled_from([0, 2]), st.sampled_from([0.25, 1.0]))
def test_roi_align(boxes: Tensor, sampling_ratio: int, scale: float) -> None:
    """The mean of what is there: never above the map's largest value, and 0 where the RoI is no box."""
    rois = torch.cat([torch.zeros(len(boxes), 1), boxes], dim=1)
    out = ops.roi_align(torch.ones(1, 3, 5, 6), rois, (2, 2), scale, sampling_ratio, aligned=True)
    assert out.isfinite().all() and (out >= 0).all() and (out <= 1 + 1e-5).all()
    assert not out[~boxes.isfinite().all(dim=1)].any()
