"""Errors by kind, and what each kind costs (Bolya et al., TIDE: A General Toolbox for Identifying Object Detection
Errors, ECCV 2020)."""

from typing import NamedTuple

import numpy as np

from frdet.evaluation.analysis.curves import average_precision
from frdet.evaluation.analysis.matching import Match, Pairs
from frdet.evaluation.analysis.results import Detected, Objects

#: Kinds of errors: the first five are of detections, the last of objects.
KINDS = ('classification', 'localisation', 'both', 'duplicate', 'background', 'missed')
FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU


class ErrorSplit(NamedTuple):
    """Errors among N detections and M objects.

    Attributes:
        found: (N,) int64, place in ``KINDS`` of every wrong detection; -1 if right, or in a crowd.
        about: (N,) int64, the object that a classification or localisation error is about, else -1.
        missed: (M,) bool, objects that no detection found, nor would have but for its class or its place.
        ap: AP at IoU 0.5, mean over the classes that have objects.
        cost: for every kind the AP that mending all errors of that kind would add.
    """

    found: np.ndarray
    about: np.ndarray
    missed: np.ndarray
    ap: float
    cost: dict[str, float]

    @property
    def counts(self) -> dict[str, int]:
        """Errors of each kind."""
        numbers = np.bincount(self.found[self.found >= 0], minlength=len(KINDS))
        numbers[-1] = self.missed.sum()
        return dict(zip(KINDS, numbers.tolist(), strict=True))


def split_errors(found: Detected, truth: Objects, pairs: Pairs, matched: Match, *, num_classes: int) -> ErrorSplit:
    """Give every wrong detection and every object that was not found its kind.

    Args:
        found, truth: of the same images.
        pairs: overlaps of ``BACKGROUND`` or more.
        matched: ``match`` of them at ``FOREGROUND``.
        num_classes: K.
    """
    kind, about = _kinds(found, truth, pairs, matched)
    free = ~truth.crowd
    free[matched.truth[matched.right]] = False
    missed = free.copy()
    missed[about[about >= 0]] = False
    counts = np.bincount(truth.label[~truth.crowd], minlength=num_classes)
    ap = _mean_ap(found.label, found.scores, matched.right, ~matched.ignored, counts)
    cost = {}
    for place, name in enumerate(KINDS):
        wrong = kind == place
        label, right, lacking = found.label, matched.right, np.zeros_like(counts)
        if name in ('classification', 'localisation'):
            mended = _best_of_each_object(found.scores, about, free) & wrong
            label = np.where(mended, truth.label[about] if len(truth.label) else 0, label)
            right, wrong = right | mended, wrong & ~mended
        elif name == 'missed':
            lacking = np.bincount(truth.label[missed], minlength=num_classes)
        cost[name] = _mean_ap(label, found.scores, right, ~matched.ignored & ~wrong, counts, lacking) - ap
    return ErrorSplit(kind, about, missed, ap, cost)


def _kinds(found: Detected, truth: Objects, pairs: Pairs, matched: Match) -> tuple[np.ndarray, np.ndarray]:
    """Kind of every detection, and the object it is about; the first rule that holds, in TIDE's order."""
    pairs = pairs.where(~truth.crowd[pairs.truth])
    is_same = found.label[pairs.found] == truth.label[pairs.truth]
    same, same_object = _best(pairs.where(is_same), len(found.label))
    other, other_object = _best(pairs.where(~is_same), len(found.label))
    rules = (
        ('localisation', (same >= BACKGROUND) & (same < FOREGROUND)),
        ('classification', other >= FOREGROUND),
        ('duplicate', same >= FOREGROUND),
        ('background', np.maximum(same, other) < BACKGROUND),
        ('both', np.ones(len(same), dtype=bool)),
    )
    kind = np.select([rule for _, rule in rules], [KINDS.index(name) for name, _ in rules], -1)
    kind = np.where(matched.wrong, kind, -1)
    about = np.select(
        [kind == KINDS.index('localisation'), kind == KINDS.index('classification')], [same_object, other_object], -1
    )
    return kind, about


def _best(pairs: Pairs, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Greatest overlap of every detection (count,), 0 if none, and the object (count,), -1 if none."""
    order = np.lexsort((-pairs.truth, pairs.iou))  # the last that is written stays
    iou, column = np.zeros(count), np.full(count, -1, dtype=np.int64)
    iou[pairs.found[order]] = pairs.iou[order]
    column[pairs.found[order]] = pairs.truth[order]
    return iou, column


def _best_of_each_object(scores: np.ndarray, about: np.ndarray, free: np.ndarray) -> np.ndarray:
    """(N,) bool: the best of the errors about an object that nothing found; mended, the others are duplicates."""
    rows = np.flatnonzero(about >= 0)
    rows = rows[free[about[rows]]]
    rows = rows[np.argsort(-scores[rows], kind='stable')]
    _, first = np.unique(about[rows], return_index=True)
    best = np.zeros(len(scores), dtype=bool)
    best[rows[first]] = True
    return best


def _mean_ap(
    label: np.ndarray,
    scores: np.ndarray,
    right: np.ndarray,
    counted: np.ndarray,
    counts: np.ndarray,
    lacking: np.ndarray | int = 0,
) -> float:
    """Mean AP of ``counted`` detections, over classes with objects: ``counts`` (K,), of which some are ``lacking``."""
    values = []
    for k in np.flatnonzero(counts):
        rows = counted & (label == k)
        values.append(average_precision(scores[rows], right[rows], int((counts - lacking)[k])))
    return float(np.mean(values)) if values else 0.0
