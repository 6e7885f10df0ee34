import numpy as np

from frdet.insight.errors import Detected, Objects, confusion_matrix, match
from tests.insight.errors.scene import CAT, DOG, scene


def confusion(found, truth, score):
    matched = match(found, truth, num_classes=2)
    return confusion_matrix(found, truth, matched, num_classes=2, score=score).tolist()


def test_the_scene_by_hand():
    # From 0.35 on: A found, B taken for a dog, C, D and G missed, and the dog, whose detection scores 0.3; the
    # duplicate, the one beside C and the one in nothing are cats of nothing, the one beside D is a dog of nothing.
    assert confusion(*scene(), score=0.35) == [[1, 1, 3], [0, 0, 1], [3, 1, 0]]
    assert confusion(*scene(), score=0.1) == [[2, 1, 2], [0, 1, 0], [3, 1, 0]]
    assert confusion(*scene(), score=0.95) == [[0, 0, 5], [0, 0, 1], [0, 0, 0]]
    assert confusion(*scene(), score=0.7) == [[1, 1, 3], [0, 0, 1], [1, 0, 0]]  # a score of 0.7 counts


def test_the_better_score_goes_first_and_crowds_are_left_out():
    box, far = [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]
    truth = Objects(np.zeros(2, int), np.array([CAT, DOG]), np.array([box, far]), np.array([False, True]))
    boxes, scores = np.array([box, box, far]), np.array([0.9, 0.5, 0.7])
    found = Detected(np.zeros(3, int), np.array([DOG, CAT, DOG]), boxes, scores)
    assert confusion(found, truth, score=0.1) == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    found = Detected(np.zeros(3, int), np.array([CAT, DOG, DOG]), boxes, scores)
    assert confusion(found, truth, score=0.1) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_without_detections():
    found, truth = scene()
    nothing = Detected(*(column[:0] for column in found))
    assert confusion(nothing, truth, score=0.1) == [[0, 0, 5], [0, 0, 1], [0, 0, 0]]
