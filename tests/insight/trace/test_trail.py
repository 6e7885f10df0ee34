"""Who suppressed a box, worked out by hand."""

import pytest
import torch

from frdet.insight.trace.trail import Rules, Trail
from frdet.structures import GroundTruth

#: Two objects beside each other.
TRUTH = torch.tensor([[[0.0, 0, 10, 10], [10, 0, 20, 10]]])
#: The box of the first object; two that overlap it by 8 / 12 and 9 / 11; one over both objects; one far away.
BOXES = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10], [1, 0, 11, 10], [0, 0, 20, 10], [50, 50, 60, 60]])


@pytest.mark.parametrize(
    ('box', 'rivals', 'limit', 'expected'),
    [
        (0, (1, 2), 0.6, ' of IoU 0.67 with it that fits this object by IoU 0.67'),  # the better of two
        (0, (1, 2), 0.7, ' of IoU 0.82 with it that fits this object by IoU 0.82'),  # the other overlaps too little
        (2, (1,), 0.8, ' of IoU 0.82 with it that fits this object by IoU 0.67'),
        (0, (3,), 0.4, ' of IoU 0.50 with it that fits this object by IoU 0.50'),
        (1, (4,), 0.4, ''),
    ],
)
def test_the_suppressor(box, rivals, limit, expected):
    trail = trail_of()
    scores = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.6])
    kept = torch.zeros(5, dtype=torch.bool).index_fill(0, torch.tensor(rivals), True)
    said = trail.suppressor('a proposal', 0, 0, BOXES, scores, box, kept, limit=limit, needed=0.5)
    assert said == f'suppressed by a proposal{expected}'


def test_a_suppressor_that_fits_another_object_or_none():
    trail = trail_of()
    moved = BOXES + torch.tensor([10.0, 0, 10, 0])
    kept = torch.tensor([False, True, False, False, False])
    scores = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.6])
    said = trail.suppressor('a detection', 0, 0, moved, scores, 0, kept, limit=0.6, needed=0.5)
    assert said == 'suppressed by a detection of IoU 0.67 with it that fits cat 2 by IoU 0.67'
    far = BOXES + 40
    said = trail.suppressor('a detection', 0, 0, far, scores, 0, kept, limit=0.6, needed=0.5)
    assert said.endswith(' that overlaps no object')


def test_a_suppressor_that_overlaps_an_object_too_little_to_fit_it():
    kept = torch.tensor([False, True, False, False, False])
    scores = torch.tensor([0.1, 0.9, 0.8, 0.7, 0.6])
    said = trail_of().suppressor('a detection', 0, 0, BOXES, scores, 0, kept, limit=0.6, needed=0.75)
    assert said.endswith(' that fits no object, and overlaps this object by IoU 0.67')


def trail_of():
    truth = GroundTruth(TRUTH, torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool))
    return Trail([], truth, [['cat 1', 'cat 2']], ['cat'], Rules(0.5, 8, 0.5, None, ()))
