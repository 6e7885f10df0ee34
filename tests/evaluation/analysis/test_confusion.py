import numpy as np

from frdet.evaluation.analysis import Detected, Objects, confusion_matrix, overlaps
from tests.evaluation.analysis.scene import CAT, DOG, scene


def confusion(found, truth, score):
    return confusion_matrix(found, truth, overlaps(found, truth, least=0.1), num_classes=2, score=score).tolist()


def test_the_scene_by_hand():
    # From 0.35 on: A found, B taken for a dog, C, D and G missed, and the dog, whose detection scores 0.3; the
    # duplicate, the one beside C and the one in nothing are cats of nothing, the one beside D is a dog of nothing.
    assert confusion(*scene(), score=0.35) == [[1, 1, 3], [0, 0, 1], [3, 1, 0]]
    assert confusion(*scene(), score=0.1) == [[2, 1, 2], [0, 1, 0], [3, 1, 0]]
    assert confusion(*scene(), score=0.95) == [[0, 0, 5], [0, 0, 1], [0, 0, 0]]


def test_the_right_class_goes_first_and_crowds_are_left_out():
    box = [0.0, 0.0, 10.0, 10.0]
    far = [50.0, 0.0, 60.0, 10.0]
    truth = Objects(np.zeros(2, int), np.array([CAT, DOG]), np.array([box, far]), np.array([False, True]))
    found = Detected(np.zeros(3, int), np.array([DOG, CAT, CAT]), np.array([box, box, far]), np.array([0.9, 0.5, 0.7]))
    assert confusion(found, truth, score=0.1) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
