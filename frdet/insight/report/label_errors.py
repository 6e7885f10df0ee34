"""Likely label errors: places where annotations and detections contradict each other, ranked within their kind.

V validations, M objects, D detections.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from frdet.datasets.checking.boxes import overlapping
from frdet.errors import ConfigError
from frdet.files import write_file
from frdet.insight.errors import BACKGROUND, KINDS, Detected, Objects, rows_by_image
from frdet.insight.found import found_objects, history
from frdet.insight.report.run import Analysis, Run
from frdet.ops import batched_nms
from frdet.structures.boxes import box_iou

FILE = 'label_errors.csv'
COLUMNS = (
    'kind', 'rank', 'image_id', 'file_name', 'annotation_ids', 'class', 'suggested_class',
    'x1', 'y1', 'x2', 'y2', 'score',
)  # fmt: skip
#: Kinds of suspects.
NO_OBJECT, CLASS, TWICE, TWO_CLASSES, NEVER = (
    'not annotated',
    'another class',
    'annotated twice',
    'two classes',
    'never found',
)
VALIDATIONS = 3  # so many must have missed an object before this says anything about its annotation
PEERS = 10  # next larger objects of the class that are compared with an object, and as many next smaller ones
NEAREST = 100  # detections by which the trust in a score is measured
SAME = 0.85  # IoU from which two annotations are likely to mark one object
PLACE = 0.3  # IoU from which two detections are about the same place


class Suspect(NamedTuple):
    """A place to look at."""

    image: int  #: index into the list of images
    objects: tuple[int, ...]  #: rows of the annotations that may be wrong
    detection: int | None  #: row of the detection that contradicts
    score: float  #: 0 to 1, the greatest first: of the detection, suspicion of a missed object, IoU of two boxes


class Suspects(NamedTuple):
    """Likely label errors among the annotations of a validation."""

    kinds: dict[str, list[Suspect]]  #: the most suspicious first
    validations: int  #: the number of those that kept which of the objects they found


def find_suspects(run: Run) -> Suspects | None:
    """The likely label errors in the annotations of the last validation; None without ``run.analysis``."""
    if run.analysis is None:
        return None
    steps = [record['epoch'] for record in run.log.val]
    return suspects_of(run.analysis, history(run.log.folders, run.analysis.results.truth, steps))


def suspects_of(analysis: Analysis, found_by: np.ndarray) -> Suspects:
    """The likely label errors.

    Args:
        found_by: (V, M) bool, the objects that each validation found. With few validations none is 'never found'.
    """
    found, truth = analysis.results.found, analysis.results.truth
    is_found = found_objects(found, truth, analysis.matched, score=analysis.score)
    missed = ~is_found & ~truth.crowd
    pairs = list(_pairs(truth))
    kinds = {
        NO_OBJECT: list(_not_annotated(analysis)),
        CLASS: list(_another_class(analysis, missed)),
        TWICE: list(_doubles(truth, pairs, same_class=True)),
        TWO_CLASSES: list(_doubles(truth, pairs, same_class=False)),
    }
    never = missed & ~found_by.any(axis=0) & (len(found_by) >= VALIDATIONS)
    never[[row for some in kinds.values() for suspect in some for row in suspect.objects]] = False  # listed already
    kinds[NEVER] = list(_never_found(found, truth, never, is_found))
    return Suspects({kind: sorted(some, key=lambda one: -one.score) for kind, some in kinds.items()}, len(found_by))


def _confident(analysis: Analysis, kind: str) -> np.ndarray:
    """Rows of the errors of ``kind`` with at least the score where F1 is best, the best score first."""
    scores = analysis.results.found.scores
    rows = np.flatnonzero((analysis.errors.found == KINDS.index(kind)) & (scores >= analysis.score))
    return rows[np.argsort(-scores[rows], kind='stable')]


def _not_annotated(analysis: Analysis) -> Iterator[Suspect]:
    """Confident detections where nothing is annotated; of several at one place the best."""
    found, rows = analysis.results.found, _confident(analysis, 'background')
    boxes, scores, image = (torch.from_numpy(column[rows]) for column in (found.boxes, found.scores, found.image))
    for row in rows[batched_nms(boxes, scores, image, PLACE).numpy()].tolist():
        yield Suspect(int(found.image[row]), (), row, float(found.scores[row]))


def _another_class(analysis: Analysis, missed: np.ndarray) -> Iterator[Suspect]:
    """Missed objects on which a confident detection of another class lies."""
    found, seen = analysis.results.found, set()
    for row in _confident(analysis, 'classification').tolist():
        about = int(analysis.errors.about[row])
        if missed[about] and about not in seen:
            seen.add(about)
            yield Suspect(int(found.image[row]), (about,), row, float(found.scores[row]))


def _never_found(found: Detected, truth: Objects, never: np.ndarray, is_found: np.ndarray) -> Iterator[Suspect]:
    """Objects that no validation found. First come those that should be easy, and where nothing is detected at all."""
    suspicion = _found_peers(truth, is_found) * (1 - _best_around(found, truth, never))
    for row in np.flatnonzero(never).tolist():
        yield Suspect(int(truth.image[row]), (row,), None, float(suspicion[row]))


def _best_around(found: Detected, truth: Objects, chosen: np.ndarray) -> np.ndarray:
    """(M,) the best score of a detection of any class that overlaps the object, for the chosen objects."""
    best = np.zeros(len(chosen))
    objects, detections = rows_by_image(truth.image, chosen), rows_by_image(found.image, found.scores > 0)
    for image in objects.keys() & detections.keys():
        rows, columns = objects[image], detections[image]
        iou = box_iou(torch.from_numpy(truth.boxes[rows]), torch.from_numpy(found.boxes[columns])).numpy()
        best[rows] = (found.scores[columns] * (iou >= BACKGROUND)).max(axis=1)
    return best


def _found_peers(truth: Objects, is_found: np.ndarray) -> np.ndarray:
    """(M,) the share of found objects among the ``PEERS`` next smaller and next larger ones of the class."""
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    order = np.lexsort((sides.prod(axis=1), truth.label))
    order = order[~truth.crowd[order]]
    shares = np.zeros(len(is_found))
    _, starts = np.unique(truth.label[order], return_index=True)
    for rows in np.split(order, starts[1:]) if len(order) else ():
        shares[rows] = _share_around(is_found[rows], PEERS)
    return shares


def trust(analysis: Analysis) -> np.ndarray:
    """(D,) the share of right detections among those nearest in score, ``NEAREST`` in all; crowds do not count."""
    scores, matched = analysis.results.found.scores, analysis.matched
    order = np.argsort(scores, kind='stable')
    order = order[~matched.ignored[order]]
    shares = np.zeros(len(scores))
    shares[order] = _share_around(matched.right[order], NEAREST // 2)
    return shares


def _share_around(flags: np.ndarray, count: int) -> np.ndarray:
    """For each of n flags, the share that is set among the ``count`` flags before it and as many after it."""
    total, places = np.append(0, np.cumsum(flags)), np.arange(len(flags))
    low, high = (places - count).clip(min=0), (places + count + 1).clip(max=len(flags))
    return (total[high] - total[low] - flags) / (high - low - 1).clip(min=1)


def _pairs(truth: Objects) -> Iterator[tuple[int, int, float]]:
    """Pairs of objects that overlap by more than ``SAME``, and their IoU."""
    xywh = np.concatenate([truth.boxes[:, :2], truth.boxes[:, 2:] - truth.boxes[:, :2]], axis=1)
    return overlapping(truth.image, xywh, ~truth.crowd, least=SAME)


def _doubles(truth: Objects, pairs: Iterable[tuple[int, int, float]], *, same_class: bool) -> Iterator[Suspect]:
    for first, second, iou in pairs:
        if (truth.label[first] == truth.label[second]) == same_class:
            yield Suspect(int(truth.image[first]), (first, second), None, iou)


def rows_of(analysis: Analysis, kind: str, suspects: Iterable[Suspect]) -> Iterator[dict[str, object]]:
    """The row of every suspect in ``label_errors.csv``. Its box is that of the annotation if there is one."""
    results = analysis.results
    for rank, suspect in enumerate(suspects, start=1):
        image, objects, detection = results.images[suspect.image], suspect.objects, suspect.detection
        labels = dict.fromkeys(results.truth.label[list(objects)].tolist())
        box = results.truth.boxes[objects[0]] if objects else results.found.boxes[detection]
        cells = (
            kind, rank, str(image['id']), image['file_name'],
            ' '.join(results.names[row] for row in objects),
            ' / '.join(results.classes[label] for label in labels),
            '' if detection is None else results.classes[results.found.label[detection]],
            *box.round(1).tolist(), round(suspect.score, 4),
        )  # fmt: skip
        yield dict(zip(COLUMNS, cells, strict=True))


def write_suspects(analysis: Analysis, suspects: Suspects, path: Path) -> None:
    """Write ``label_errors.csv``.

    Raises:
        ConfigError: the path cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()
    for kind, some in suspects.kinds.items():
        writer.writerows(rows_of(analysis, kind, some))
    try:
        write_file(path, text.getvalue().encode())
    except OSError as error:
        raise ConfigError(f'{path} cannot be written ({error.strerror}): choose another folder with --out') from None
