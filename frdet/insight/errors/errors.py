"""Matches of detections with objects, and kinds of errors (Bolya et al., TIDE: A General Toolbox for Identifying Object
Detection Errors, ECCV 2020). hotcoco computes the matches and the cost of each kind."""

from typing import Any, NamedTuple

import numpy as np

from frdet.evaluation.backends import Columns, Numbered, hotcoco_evaluator
from frdet.insight.errors.results import Detected, Objects

#: Kinds of errors and hotcoco's names for them. Five are errors of detections, the last is an error of objects.
_TIDE = {
    'classification': 'Cls',
    'localisation': 'Loc',
    'both': 'Both',
    'duplicate': 'Dupe',
    'background': 'Bkg',
    'missed': 'Miss',
}
KINDS = tuple(_TIDE)
FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU


class Match(NamedTuple):
    """The objects that N detections found.

    Attributes:
        truth: (N,) int64, index of the object found, -1 if none.
        ignored: (N,) bool, whether the detection lies in a crowd and so is neither right nor wrong.
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


class ErrorSplit(NamedTuple):
    """Errors among N detections and M objects.

    Attributes:
        found: (N,) int64, index into ``KINDS`` for every wrong detection; -1 if it is right or in a crowd.
        about: (N,) int64, index of the object of a classification or localisation error, else -1.
        missed: (M,) bool, whether no detection found the object, and it is not in ``about``.
        ap: AP at IoU 0.5, mean over the classes that have objects.
        counts: number of errors of every kind.
        cost: for every kind, the AP that would be gained without its errors.
    """

    found: np.ndarray
    about: np.ndarray
    missed: np.ndarray
    ap: float
    counts: dict[str, int]
    cost: dict[str, float]


def match(found: Detected, truth: Objects, *, num_classes: int) -> Match:
    """COCO's matching at IoU 0.5: in the order of descending scores, each detection takes the free object of its class
    that it overlaps most."""
    matches = _evaluator(found, truth, num_classes).image_diagnostics(iou_thr=FOREGROUND)
    ids = range(1, len(found.image) + 1)
    taken = np.array([matches['dt_match'].get(i, 0) - 1 for i in ids], dtype=np.int64)
    return Match(taken, np.array([i not in matches['dt_status'] for i in ids], dtype=bool))


def split_errors(found: Detected, truth: Objects, matched: Match, *, num_classes: int) -> ErrorSplit:
    """Find the kind of error of every wrong detection and every missed object.

    Args:
        found, truth: detections and objects of the same images.
        matched: their ``match``.
        num_classes: number of classes.
    """
    kind, about = _kinds(found, truth, matched)
    missed = ~truth.crowd
    missed[matched.truth[matched.right]] = False
    missed[about[about >= 0]] = False
    tide = _without_crowds(found, truth, matched, num_classes).tide_errors(pos_thr=FOREGROUND, bg_thr=BACKGROUND)
    counts, cost = ({name: tide[key][short] for name, short in _TIDE.items()} for key in ('counts', 'delta_ap'))
    return ErrorSplit(kind, about, missed, tide['ap_base'], counts, cost)


def confusion_matrix(
    found: Detected, truth: Objects, matched: Match, *, num_classes: int, score: float, iou: float = 0.5
) -> np.ndarray:
    """(K + 1, K + 1) int64 counts of objects by their class (row) and the class they were found as (column).

    The last column counts missed objects, the last row detections without an object. In the order of descending
    scores, each detection takes the free object of any class that it overlaps most. Crowds and detections in
    them do not count.

    Args:
        found, truth: detections and objects of the same images.
        matched: their ``match``.
        num_classes: K.
        score: the least score of detections that count.
        iou: the least IoU of a pair.
    """
    evaluator = _without_crowds(found, truth, matched, num_classes)
    counts = evaluator.confusion_matrix(iou_thr=iou, max_det=len(found.image), min_score=score)
    return counts['matrix'].astype(np.int64)


def _evaluator(found: Detected, truth: Objects, num_classes: int) -> Any:
    """hotcoco's evaluator. Its ids of detections and objects are their rows + 1."""
    num_images = 1 + max(found.image.max(initial=-1), truth.image.max(initial=-1))
    area = np.ones(len(truth.image))  # sizes are not told apart
    columns = Columns(truth.image + 1, truth.label + 1, _xywh(truth.boxes), area, truth.crowd)
    table = np.column_stack([found.image + 1, _xywh(found.boxes), found.scores, found.label + 1])
    images, most = list(range(1, num_images + 1)), max(1, len(found.image))
    return hotcoco_evaluator(Numbered(num_images, num_classes, columns, table, images, [most] * 3))


def _without_crowds(found: Detected, truth: Objects, matched: Match, num_classes: int) -> Any:
    """The evaluator without crowds. TIDE knows none: hotcoco would call a detection near one a localisation error."""
    counted = Detected(*(column[~matched.ignored] for column in found))
    return _evaluator(counted, Objects(*(column[~truth.crowd] for column in truth)), num_classes)


def _kinds(found: Detected, truth: Objects, matched: Match) -> tuple[np.ndarray, np.ndarray]:
    """Kind of error of every detection, and its object. The first rule that holds applies, in TIDE's order."""
    from hotcoco.primitives import bbox_iou

    kind, about = np.full((2, len(found.image)), -1, dtype=np.int64)
    images = 1 + max(found.image.max(initial=-1), truth.image.max(initial=-1))
    wrong, objects = (
        _by_image(image, np.flatnonzero(chosen), images)
        for image, chosen in ((found.image, matched.wrong), (truth.image, ~truth.crowd))
    )
    for rows, columns in zip(wrong, objects, strict=True):
        kind[rows] = KINDS.index('background')
        if not (len(rows) and len(columns)):
            continue
        iou = bbox_iou(_xywh(found.boxes[rows]), _xywh(truth.boxes[columns]), np.zeros(len(columns), dtype=bool))
        is_same = found.label[rows][:, None] == truth.label[columns]
        of_same, of_other = iou * is_same, iou * ~is_same
        same, other = of_same.max(axis=1), of_other.max(axis=1)
        rules = {
            'localisation': (same >= BACKGROUND) & (same < FOREGROUND),
            'classification': other >= FOREGROUND,
            'duplicate': same >= FOREGROUND,
            'background': np.maximum(same, other) < BACKGROUND,
        }
        kind[rows] = np.select(list(rules.values()), [KINDS.index(name) for name in rules], KINDS.index('both'))
        about[rows] = np.select(
            [kind[rows] == KINDS.index('localisation'), kind[rows] == KINDS.index('classification')],
            [columns[of_same.argmax(axis=1)], columns[of_other.argmax(axis=1)]],
            -1,
        )
    return kind, about


def _by_image(image: np.ndarray, rows: np.ndarray, count: int) -> list[np.ndarray]:
    """``rows`` split by image, for ``count`` images."""
    rows = rows[np.argsort(image[rows], kind='stable')]
    return np.split(rows, np.searchsorted(image[rows], np.arange(1, count)))


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)
