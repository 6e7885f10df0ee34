import numpy as np
import pytest

from frdet.insight.errors import Detected, Objects, match
from tests.insight.errors.scene import A, F, G, random_scene, scene, slow_iou


def slow_match(found, truth, threshold=0.5):
    """COCO's matching as its paper's code words it: by score, the best free object, a crowd only if there is none."""
    taken, ignored = np.full(len(found.scores), -1), np.zeros(len(found.scores), bool)
    for row in sorted(range(len(found.scores)), key=lambda row: -found.scores[row]):
        best, place = threshold, -1
        for column in range(len(truth.label)):
            if (found.image[row], found.label[row]) != (truth.image[column], truth.label[column]):
                continue
            iou = slow_iou(found.boxes[row], truth.boxes[column], truth.crowd[column])
            if truth.crowd[column]:
                ignored[row] |= iou >= threshold
            elif column not in taken and iou >= best:
                best, place = iou, column
        taken[row] = place
    return taken, ignored & (taken < 0)


def test_the_scene_by_hand():
    found, truth = scene()
    matched = match(found, truth, num_classes=2)
    assert matched.truth.tolist() == [A, -1, -1, -1, -1, -1, F, G]
    assert not matched.ignored.any()


@pytest.mark.parametrize('seed', range(5))
def test_random_scenes(seed):
    found, truth = random_scene(seed)
    matched = match(found, truth, num_classes=3)
    taken, ignored = slow_match(found, truth)
    assert matched.truth.tolist() == taken.tolist()
    assert matched.ignored.tolist() == ignored.tolist()
    assert ignored.any() and (taken >= 0).sum() > 10


def test_nothing():
    none = np.zeros(0, int)
    found, truth = scene()
    no_found = Detected(none, none, np.zeros((0, 4)), np.zeros(0))
    no_truth = Objects(none, none, np.zeros((0, 4)), none.astype(bool))
    assert match(no_found, truth, num_classes=2).truth.shape == (0,)
    assert match(found, no_truth, num_classes=2).wrong.all()
    assert match(no_found, no_truth, num_classes=2).truth.shape == (0,)
