"""The objects of tested images as the metric sees them, and which detections COCO's evaluation counts as right."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.masks import rle_of, unpack_mask
from frdet.evaluation import CocoMetric
from frdet.evaluation.backends import Columns, Numbered, hotcoco_evaluator
from frdet.evaluation.numbering import Detections, numbers_of
from frdet.evaluation.truth import IGNORED
from frdet.insight.errors import KINDS, Detected, Match, Objects, kinds_of, xyxy


class ImageTruth(NamedTuple):
    """The annotations of an image that the metric reads.

    Attributes:
        names: ids of the annotations.
        labels: (n,) int64.
        xywh: (n, 4) float64 in pixels of the original image.
        area: (n,) float64; negative if the annotation is ignored.
        crowd: (n,) bool.
    """

    names: list[str]
    labels: np.ndarray
    xywh: np.ndarray
    area: np.ndarray
    crowd: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """(n,) bool, whether it is an object to find, and no crowd."""
        return ~self.crowd & (self.area != IGNORED)


class Outcome(NamedTuple):
    """COCO's verdict on the D detections of an image.

    Attributes:
        found: (D,) int64, the annotation that the detection found; -1 if it found none.
        kind: (D,) of ``KINDS`` for a false positive; '' for others. A detection in a crowd, or beyond the number that
            the metric counts, is neither.
        nearest: (D,) int64, the annotation that it overlaps most, -1 if there is none, and
        iou: (D,) their IoU.
        overlaps: (D, n) IoU with the annotations.
    """

    found: np.ndarray
    kind: np.ndarray
    nearest: np.ndarray
    iou: np.ndarray
    overlaps: np.ndarray


class MetricTruth:
    """The ground truth of a ``CocoMetric`` that knows its data set, image by image."""

    def __init__(self, metric: CocoMetric):
        self.truth = metric.truth()
        self.classes, cat_ids = metric.categories()
        self.numbers = numbers_of(cat_ids)
        self.max_dets = list(metric.max_dets)
        everything = range(len(self.truth.images)), self.classes, self.numbers
        self._names = np.array(self.truth.annotation_names(*everything), dtype=object)
        columns = self.truth.annotations(*everything)
        order = np.argsort(columns.image, kind='stable')
        self._columns = Columns(*(column[order] for column in columns))
        self._names = self._names[order]
        self._masks = np.array(self.truth.packed_masks(*everything), dtype=object)[order]
        self._starts = np.searchsorted(self._columns.image, np.arange(1, len(self.truth.images) + 2))
        self._label_of = {number: label for label, number in self.numbers.items()}

    def of(self, position: int) -> ImageTruth:
        """The annotations of the image at ``position``."""
        rows = slice(*self._starts[position : position + 2])
        _, category, xywh, area, crowd = (column[rows] for column in self._columns)
        labels = np.array([self._label_of[number] for number in category.tolist()], dtype=np.int64)
        return ImageTruth(self._names[rows].tolist(), labels, xywh, area, crowd)

    def mask(self, position: int, row: int) -> dict[str, Any] | None:
        """COCO's RLE of an annotation of the image at ``position``; None if there is none or it was not read."""
        packed = self._masks[self._starts[position] + row]
        return None if packed is None else rle_of(unpack_mask(packed), self.truth.size(position))

    def judge(self, found: Sequence[Detections], truth: Sequence[ImageTruth], iou: float) -> list[Outcome]:
        """Match the detections of some images with their annotations by COCO's rules."""
        images = range(1, len(found) + 1)
        table = np.concatenate([_table(number, one, self.numbers) for number, one in zip(images, found, strict=True)])
        counted = table[:, -1] > 0  # labels without a category do not count
        number_of = np.array([self.numbers.get(label, 0) for label in range(len(self.classes))])
        columns = Columns(
            np.concatenate([np.full(len(one.labels), number) for number, one in zip(images, truth, strict=True)]),
            np.concatenate([number_of[one.labels] for one in truth]),
            *(np.concatenate([getattr(one, name) for one in truth]) for name in ('xywh', 'area', 'crowd')),
        )
        task = Numbered(len(found), len(self.numbers), columns, table[counted], list(images), self.max_dets)
        verdict = hotcoco_evaluator(task, [iou]).image_diagnostics(iou_thr=iou)
        right, judged = np.full(len(table), -1), np.zeros(len(table), dtype=bool)
        rows = np.flatnonzero(counted)
        for number in verdict['dt_status']:
            judged[rows[number - 1]] = True
            right[rows[number - 1]] = verdict['dt_match'].get(number, 0) - 1
        ends = np.cumsum([len(one.labels) for one in found])[:-1]
        first = np.cumsum([0, *(len(one.labels) for one in truth)])
        return [
            _outcome(one, there, np.where(match >= 0, match - start, -1), known, iou)
            for one, there, match, known, start in zip(
                found, truth, np.split(right, ends), np.split(judged, ends), first, strict=False
            )
        ]


def _table(number: int, found: Detections, numbers: dict[int, int]) -> np.ndarray:
    category = [numbers.get(label, 0) for label in found.labels.tolist()]
    return np.column_stack([np.full(len(category), number), found.xywh, found.scores, category]).reshape(-1, 7)


def _outcome(found: Detections, truth: ImageTruth, right: np.ndarray, judged: np.ndarray, needed: float) -> Outcome:
    overlaps = iou_of(found.xywh, truth.xywh)
    zeros = np.zeros(len(found.labels), dtype=np.int64)
    detected = Detected(zeros, found.labels, xyxy(found.xywh), found.scores)
    objects = Objects(np.zeros(len(truth.labels), dtype=np.int64), truth.labels, xyxy(truth.xywh), ~truth.counts)
    kind, _ = kinds_of(detected, objects, Match(right, ~judged), needed)
    nearest = overlaps.argmax(axis=1) if len(truth.labels) else zeros - 1
    iou = overlaps.max(axis=1, initial=0)
    names = np.array([*KINDS, ''], dtype=object)  # -1 is the last
    return Outcome(right, names[kind], np.where(iou > 0, nearest, -1), iou, overlaps)


def iou_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) IoU of boxes (N, 4) and (M, 4) xywh, as COCO's evaluation computes it."""
    from hotcoco.primitives import bbox_iou

    return bbox_iou(a, b, np.zeros(len(b), dtype=bool)) if len(a) and len(b) else np.zeros((len(a), len(b)))
