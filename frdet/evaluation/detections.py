"""Detections of a test, for an evaluator and as COCO's results JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.annotations import Id
from frdet.evaluation.truth import Truth
from frdet.files import write_file


class Detections(NamedTuple):
    """Detections in one image: ``boxes`` (n, 4) xyxy, ``scores`` (n,), ``labels`` (n,)."""

    img_id: Id
    img_path: str | None
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def rows(self) -> Iterator[tuple[list[float], float, int]]:
        """Box [x, y, width, height], which is subtracted in float64, score and label of each detection."""
        for (x1, y1, x2, y2), score, label in zip(
            self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True
        ):
            yield [x1, y1, x2 - x1, y2 - y1], score, label


def numbered(found: dict[int, Detections], numbers: dict[int, int]) -> np.ndarray:
    """(N, 7) float64 for an evaluator: number of the image (position + 1), left, top, width, height, score, category.

    Args:
        found: detections by the position of their image.
        numbers: the evaluator's category id of every label that counts. Detections of other labels are left out.
    """
    tables = [np.zeros((0, 7))]
    for position, one in found.items():
        category = [numbers.get(label, 0) for label in one.labels.tolist()]
        boxes = one.boxes.astype(np.float64)
        size = boxes[:, 2:] - boxes[:, :2]
        table = np.column_stack([np.full(len(boxes), position + 1), boxes[:, :2], size, one.scores, category])
        tables.append(table[table[:, -1] > 0])
    return np.concatenate(tables)


def results_of(
    found: dict[int, Detections], truth: Truth, classes: Sequence[str], cat_ids: Sequence[Id | None]
) -> Iterable[dict[str, Any]]:
    """COCO's results with the ids of the annotation files; with image file names if several files are joined."""
    for position, one in found.items():
        image, known = truth.images[position], truth.source_of(position).content.categories
        ids = [known.get(name, cat_id) for name, cat_id in zip(classes, cat_ids, strict=True)]
        joined = {'file_name': image['file_name']} if len(truth.sources) > 1 else {}
        for box, score, label in one.rows():
            if ids[label] is not None:
                yield {'image_id': image['id'], **joined, 'category_id': ids[label], 'bbox': box, 'score': score}


def write_results(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Write COCO's results JSON. The file appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(records).encode())
