"""Detections and ground truth as the input of an evaluator, with images and classes numbered from 1."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from frdet.datasets.annotations import Id, id_key
from frdet.evaluation.backends import Numbered
from frdet.evaluation.truth import Truth


class Detections(NamedTuple):
    """Detections in one image: ``xywh`` (n, 4) float64 in pixels, ``scores`` (n,), ``labels`` (n,)."""

    img_id: Id
    img_path: str | None
    xywh: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def numbers_of(cat_ids: Collection[Id | None]) -> dict[int, int]:
    """The evaluator's number of every label that has a category, in the order of the category ids.

    COCO averages in this order. Another order would change the rounding.
    """
    known = {label: cat_id for label, cat_id in enumerate(cat_ids) if cat_id is not None}
    return {label: number for number, label in enumerate(sorted(known, key=lambda k: id_key(known[k])), start=1)}


def numbered(
    truth: Truth,
    found: Mapping[int, Detections],
    classes: Sequence[str],
    numbers: dict[int, int],
    max_dets: Sequence[int],
) -> Numbered:
    """The input of an evaluator.

    Args:
        found: detections by the position of their image in ``truth``, ascending. These images are tested.
        classes: names by label.
        numbers: the evaluator's category id of every label that counts. Detections of other labels are left out.
        max_dets: three counts of detections, ascending.
    """
    return Numbered(
        num_images=len(truth.images),
        num_classes=len(numbers),
        truth=truth.annotations(found, classes, numbers),
        found=_table(found, numbers),
        tested=[position + 1 for position in found],
        max_dets=list(max_dets),
    )


def _table(found: Mapping[int, Detections], numbers: dict[int, int]) -> np.ndarray:
    """(N, 7) float64: number of the image (position + 1), left, top, width, height, score, category."""
    tables = [np.zeros((0, 7))]
    for position, one in found.items():
        category = [numbers.get(label, 0) for label in one.labels.tolist()]
        table = np.column_stack([np.full(len(category), position + 1), one.xywh, one.scores, category])
        tables.append(table[table[:, -1] > 0])
    return np.concatenate(tables)
