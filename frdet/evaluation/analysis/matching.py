"""Which detection found which object.

Only pairs of a detection and an object that overlap are ever looked at: they are few, so the greedy choice among them,
which goes one by one, costs little.
"""

from typing import NamedTuple

import numpy as np

from frdet.evaluation.analysis.results import Detected, Objects

_BLOCK = 20_000  # detections compared at once, for memory


class Pairs(NamedTuple):
    """P pairs of one image: ``found`` (P,) and ``truth`` (P,) int64, rows of each; ``iou`` (P,) float64."""

    found: np.ndarray
    truth: np.ndarray
    iou: np.ndarray

    def where(self, keep: np.ndarray) -> 'Pairs':
        """Those where ``keep`` (P,) bool."""
        return Pairs(self.found[keep], self.truth[keep], self.iou[keep])


class Match(NamedTuple):
    """Of N detections.

    Attributes:
        truth: (N,) int64, the object found, -1 if none.
        ignored: (N,) bool, in a crowd, thus neither right nor wrong.
    """

    truth: np.ndarray
    ignored: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(N,) bool."""
        return self.truth >= 0

    @property
    def wrong(self) -> np.ndarray:
        """(N,) bool."""
        return (self.truth < 0) & ~self.ignored


def overlaps(found: Detected, truth: Objects, *, least: float) -> Pairs:
    """Pairs of any classes with an IoU of ``least`` or more; with a crowd it is the share of the detection inside."""
    order = np.argsort(truth.image, kind='stable')
    first, last = (np.searchsorted(truth.image[order], found.image, side=side) for side in ('left', 'right'))
    parts = []
    for start in range(0, len(found.image), _BLOCK):
        counts = (last - first)[start : start + _BLOCK]
        rows = np.repeat(np.arange(start, start + len(counts)), counts)
        step = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = order[first[rows] + step]
        iou = _iou(found.boxes[rows], truth.boxes[columns], truth.crowd[columns])
        keep = iou >= least
        parts.append((rows[keep], columns[keep], iou[keep]))
    empty = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    return Pairs(*(np.concatenate(arrays) for arrays in zip(empty, *parts, strict=True)))


def match(found: Detected, truth: Objects, pairs: Pairs, *, threshold: float = 0.5) -> Match:
    """COCO's matching at one IoU: by descending score, each detection takes the free object of its class it overlaps
    most."""
    same = pairs.where((found.label[pairs.found] == truth.label[pairs.truth]) & (pairs.iou >= threshold))
    in_crowd = truth.crowd[same.truth]
    objects = same.where(~in_crowd)
    # Of equal overlaps COCO takes the later object.
    order = np.lexsort((-objects.truth, -objects.iou, objects.found, -found.scores[objects.found]))
    taken = take_each_once(objects.where(order), len(found.image))
    ignored = np.zeros(len(taken), dtype=bool)
    ignored[same.found[in_crowd]] = True
    return Match(taken, ignored & (taken < 0))


def take_each_once(pairs: Pairs, count: int) -> np.ndarray:
    """Go through pairs in order and keep those whose both sides are still free; (count,) object per detection or -1."""
    taken = np.full(count, -1, dtype=np.int64)
    used: set[int] = set()
    seen: set[int] = set()
    for row, column in zip(pairs.found.tolist(), pairs.truth.tolist(), strict=True):
        if row not in seen and column not in used:
            seen.add(row)
            used.add(column)
            taken[row] = column
    return taken


def _iou(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(P,) of boxes (P, 4) xyxy row by row; only the first box's area below the line where ``crowd``."""
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    common = sides.clip(min=0).prod(axis=1)
    area, other = ((b[:, 2:] - b[:, :2]).clip(min=0).prod(axis=1) for b in (boxes, others))
    return common / np.maximum(np.where(crowd, area, area + other - common), np.finfo(np.float64).tiny)
