"""Selections tell an observer what they keep; expected values are worked out by hand."""

import pytest
import torch

from frdet.models.task_modules import AnchorGenerator, best_scores, select_batch, select_proposals
from frdet.models.task_modules.observing import Filtered, observing, tell

SQUARES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 50, 30], [30, 0, 31, 10]])


def told_by(select):
    """The events of a call."""
    events = []
    with observing(events.append):
        select()
    return events


def test_anchors_of_each_level():
    generator = AnchorGenerator(strides=(4, 8), sizes=((4,), (8,)), ratios=(1.0,))
    (event,) = told_by(lambda: generator.grid([(2, 1), (1, 1)]))
    assert [level.tolist() for level in event.boxes] == [[[-2, -2, 2, 2], [-2, 2, 2, 6]], [[-4, -4, 4, 4]]]


def test_top_k():
    scores = torch.tensor([[0.1, 0.9, 0.5]])
    (event,) = told_by(lambda: best_scores(scores, 2))
    assert event.index.tolist() == [[1, 2]] and event.scores is scores


def test_proposals():
    """The second box overlaps the first by 0.9, the third leaves the image, the last is thin."""
    scores = torch.tensor([[4.0, 3, 2, 1]])
    sizes = torch.tensor([[100.0, 40]])

    def select():
        return select_proposals([SQUARES[None]], [scores], sizes, nms_iou_thr=0.7, num=3, min_side=2)

    (event,) = told_by(select)
    assert event.decoded[0].tolist() == SQUARES.tolist()
    assert event.boxes[0, 2].tolist() == [20, 20, 40, 30]
    assert event.level.tolist() == [0, 0, 0, 0]
    assert event.legal.tolist() == [[True, True, True, False]]
    assert event.kept.tolist() == [[True, False, True, False]]
    assert event.index[0, :2].tolist() == [0, 2]
    assert event.valid.tolist() == [[True, True, False]]
    assert event.nms_iou_thr == 0.7


def test_detections():
    """Two classes; the first two boxes suppress each other only where both have a score of the class."""
    scores = torch.tensor([[[0.9, 0.01], [0.8, 0.7], [0.04, 0.6], [0.5, 0.5]]])
    valid = torch.tensor([[True, True, True, False]])

    def select():
        return select_batch(SQUARES[None, :, None], scores, valid, score_thr=0.05, nms_iou_thr=0.5, num=2)

    (event,) = told_by(select)
    assert event.boxes.shape == (1, 4, 2, 4)
    assert event.candidate[0].tolist() == [[True, False], [True, True], [False, True], [False, False]]
    assert event.kept[0].tolist() == [[True, False], [False, True], [False, True], [False, False]]
    assert event.index.tolist() == [[0, 3]]  # box 0 as class 0, box 1 as class 1
    assert event.there.tolist() == [[True, True]]
    assert (event.score_thr, event.nms_iou_thr) == (0.05, 0.5)


def test_an_observer_hears_only_within_its_context():
    events, others = [], []
    told = Filtered('mine', SQUARES[None], torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(KeyError), observing(events.append), observing(others.append):
        tell(told)
        raise KeyError
    tell(told)
    assert events == others == [told]
