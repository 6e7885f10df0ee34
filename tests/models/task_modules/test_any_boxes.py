"""From any boxes, deltas and scores to legal proposals, matches and detections."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from frdet.models.task_modules.anchors import DeltaXYWHCoder
from frdet.models.task_modules.selection import select_batch, select_proposals
from frdet.models.task_modules.targets import MaxIoUAssigner
from frdet.structures import clip_boxes
from tests.ops.test_any_boxes import any_boxes, coordinates

SIZE = torch.tensor([[8.0, 10.0]])  # height, width


def tensor(draw, *shape):
    count = math.prod(shape)
    return torch.tensor(draw(st.lists(coordinates, min_size=count, max_size=count)), dtype=torch.float32).view(shape)


def assert_legal(boxes, scores):
    """Inside the image, ordered, finite, best first."""
    assert boxes.isfinite().all() and scores.isfinite().all()
    assert (boxes >= 0).all() and (boxes[:, 2:] >= boxes[:, :2]).all()
    assert (boxes[:, 2] <= 10).all() and (boxes[:, 3] <= 8).all()
    assert (scores[:-1] >= scores[1:]).all()


@given(st.data())
def test_proposals(data):
    anchors = data.draw(any_boxes())
    count = len(anchors)
    deltas, scores = tensor(data.draw, 1, count, 4), tensor(data.draw, 1, count)
    boxes = DeltaXYWHCoder().decode(anchors, deltas)
    found = select_proposals([boxes], [scores], SIZE, nms_iou_thr=0.7, num=5, min_side=0.0)
    assert found.boxes.shape == (1, min(count, 5), 4)
    assert_legal(found.boxes[found.valid], found.scores[found.valid])
    assert not found.boxes[~found.valid].any() and (found.scores[~found.valid] == -math.inf).all()


@given(st.data())
def test_detections(data):
    boxes = clip_boxes(data.draw(any_boxes()), SIZE[0])
    scores = tensor(data.draw, len(boxes), 3)
    num = 3 * len(boxes)
    valid = torch.ones(1, len(boxes), dtype=torch.bool)
    found = select_batch(boxes[None, :, None], scores[None], valid, score_thr=0.05, nms_iou_thr=0.5, num=num)
    there = found.labels >= 0
    assert (found.scores[there] > 0.05).all() and not found.scores[~there].any() and not found.boxes[~there].any()
    assert (found.labels < 3).all() and found.boxes.isfinite().all() and found.scores.isfinite().all()
    fine = (boxes[:, 2:] > boxes[:, :2]).all(dim=1) & boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    assert there.any() or not (scores[fine] > 0.05).any()


@given(any_boxes(), any_boxes(6))
def test_matches(boxes, gt_boxes):
    assigner = MaxIoUAssigner(pos_iou_thr=0.7, neg_iou_thr=0.3, match_low_quality=True)
    found = assigner.assign(boxes, gt_boxes, torch.zeros(len(gt_boxes), dtype=torch.long))
    assert set(found.label.tolist()) <= {-1, 0, 1}
    positive = found.gt_index[found.label == 1]
    assert ((positive >= 0) & (positive < len(gt_boxes))).all()
    assert ((found.iou >= 0) & (found.iou <= 1)).all()
    assert (found.label[~boxes.isfinite().all(dim=1)] != 1).all()
