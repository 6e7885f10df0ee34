"""Curves of a validation: precision, recall and F1 against the score, and COCO's precision by recall and by class."""

from typing import NamedTuple

import numpy as np

from frdet.evaluation.backends import CocoEval
from frdet.insight.errors import Detected, Match, Objects

#: Columns of ``class_table``.
COLUMNS = ('AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l')


class F1Curve(NamedTuple):
    """Precision, recall and F1 of the detections whose score reaches one of S thresholds. All arrays are (S,)."""

    scores: np.ndarray  #: the thresholds: the scores that occur, descending
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @property
    def best(self) -> int:
        """Index of the greatest F1, with the highest score among equals; an error if there are no scores."""
        return int(np.argmax(self.f1))

    @property
    def threshold(self) -> float:
        """The score of the greatest F1, 0 without detections."""
        return float(self.scores[self.best]) if len(self.scores) else 0.0


def f1_curve(scores: np.ndarray, right: np.ndarray, count: int) -> F1Curve:
    """F1 = 2 TP / (detections + objects) for each threshold.

    Args:
        scores: (N,) scores of the detections of one class or of all classes.
        right: (N,) bool, whether the detection found an object.
        count: number of objects.
    """
    order = np.argsort(-scores, kind='stable')
    scores, found = scores[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, dtype=int)
    found, kept = found[last], last + 1
    return F1Curve(scores[last], found / kept, found / max(count, 1), 2 * found / (kept + count))


def f1_of_all(found: Detected, truth: Objects, matched: Match) -> F1Curve:
    """F1 of the detections of all classes together. Crowds and the detections in them do not count."""
    counted = ~matched.ignored
    return f1_curve(found.scores[counted], matched.right[counted], int((~truth.crowd).sum()))


def precision_curve(evaluation: CocoEval, *, iou: float | None = None) -> np.ndarray:
    """(R,) precision at COCO's recalls: the mean over classes that have objects, at one IoU or over all of them.

    nan if there are no objects.
    """
    precision = evaluation.precision[:, :, :, 0, -1]
    if iou is not None:
        precision = precision[np.isclose(evaluation.iou_thresholds, iou)]
    return _means(precision, (0, 2))


def class_table(evaluation: CocoEval) -> np.ndarray:
    """(K, 6) metric values of ``COLUMNS`` for each class; nan if it has no object of that size."""
    precision = evaluation.precision[..., -1]  # (T, R, K, A)
    at = [precision[np.isclose(evaluation.iou_thresholds, iou)][..., 0] for iou in (0.5, 0.75)]
    columns = [precision[..., 0], *at, *(precision[..., area] for area in (1, 2, 3))]
    return np.stack([_means(column, (0, 1)) for column in columns], axis=1)


def _means(precision: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
    """Means of the values that are not -1; nan if there are none."""
    there = precision > -1
    total, count = np.where(there, precision, 0).sum(axis=axes), there.sum(axis=axes)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
