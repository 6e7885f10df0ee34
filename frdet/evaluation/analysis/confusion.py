"""Which class is taken for which."""

import numpy as np

from frdet.evaluation.analysis.matching import Pairs, take_each_once
from frdet.evaluation.analysis.results import Detected, Objects


def confusion_matrix(
    found: Detected, truth: Objects, pairs: Pairs, *, num_classes: int, score: float, iou: float = 0.5
) -> np.ndarray:
    """(K + 1, K + 1) int64: objects of the row's class found as the column's; the last ones are the background.

    The last column has the objects missed, the last row the detections of nothing. A detection and an object are paired
    whatever their classes, the greatest overlap first, each once. Crowds, and detections in them, are left out.

    Args:
        found, truth: of the same images.
        pairs: their overlaps.
        num_classes: K.
        score: detections that score less are left out.
        iou: least overlap of a pair.
    """
    kept = found.scores >= score
    pairs = pairs.where(kept[pairs.found] & (pairs.iou >= iou))
    in_crowd = truth.crowd[pairs.truth]
    objects = pairs.where(~in_crowd)
    # Of equal overlaps the right class goes first, then the better score.
    wrong = found.label[objects.found] != truth.label[objects.truth]
    order = np.lexsort((-found.scores[objects.found], wrong, -objects.iou))
    taken = take_each_once(objects.where(order), len(kept))
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    hits = np.flatnonzero(taken >= 0)
    np.add.at(matrix, (truth.label[taken[hits]], found.label[hits]), 1)
    missed = ~truth.crowd
    missed[taken[hits]] = False
    matrix[:num_classes, num_classes] = np.bincount(truth.label[missed], minlength=num_classes)
    false = kept & (taken < 0)
    false[pairs.found[in_crowd]] = False
    matrix[num_classes, :num_classes] = np.bincount(found.label[false], minlength=num_classes)
    return matrix
