"""A validation's detections and annotations as arrays."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.annotations import Annotations, Id
from frdet.datasets.coco import read_coco
from frdet.errors import DataError


class Objects(NamedTuple):
    """N annotated objects.

    Attributes:
        image: (N,) int64, index into the list of images.
        label: (N,) int64, index into the list of classes.
        boxes: (N, 4) float64 xyxy in pixels of the image.
        crowd: (N,) bool, crowds and ignored objects, which do not count as found or missed.
    """

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray


class Detected(NamedTuple):
    """N detections: ``image``, ``label`` and ``boxes`` as for ``Objects``, ``scores`` (N,) float64."""

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


class Results(NamedTuple):
    """Objects and detections of a list of images.

    Attributes:
        images: COCO's record of every image, sorted by id.
        classes: names in label order.
        cat_ids: category id of each class.
        truth, found: objects and detections.
    """

    images: list[dict[str, Any]]
    classes: list[str]
    cat_ids: list[Id]
    truth: Objects
    found: Detected

    def names_of(self, cat_ids: Sequence[Id]) -> list[str]:
        """Names of categories; the id itself if it has no name."""
        known = dict(zip(self.cat_ids, self.classes, strict=True))
        return [known.get(cat_id, str(cat_id)) for cat_id in cat_ids]


def read_results(
    ann_file: str | Path,
    detections: str | Path,
    *,
    img_ids: Sequence[Id] | None = None,
    classes: Sequence[str] | None = None,
) -> Results:
    """Read an annotation file, and the detections that ``CocoMetric`` wrote to its ``outfile``.

    Args:
        ann_file: COCO's annotations.
        detections: COCO's results JSON.
        img_ids: the images that were evaluated; None means all.
        classes: names in label order; None means all of the file, sorted by id. Names not in the file are ignored.

    Raises:
        DataError: a file cannot be read or has another format.
    """
    content = read_coco(ann_file)
    ids = content.categories
    names = [name for name in (classes or ids) if name in ids]
    label_of = {ids[name]: label for label, name in enumerate(names)}
    wanted = None if img_ids is None else set(img_ids)
    images = [image for image in content.images if wanted is None or image['id'] in wanted]
    place_of = {image['id']: place for place, image in enumerate(images)}
    listed = _read_detections(detections)
    try:
        found = [item for item in listed if item['image_id'] in place_of and item['category_id'] in label_of]
        return Results(
            images,
            names,
            [ids[name] for name in names],
            _objects(content, place_of, label_of),
            Detected(
                np.array([place_of[item['image_id']] for item in found], dtype=np.int64),
                np.array([label_of[item['category_id']] for item in found], dtype=np.int64),
                _xyxy(np.array([item['bbox'] for item in found], dtype=np.float64).reshape(-1, 4)),
                np.array([item['score'] for item in found], dtype=np.float64),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f'{ann_file} and {detections} are not COCO annotations and results ({error}): expected image_id, '
            'category_id, bbox and score'
        ) from None


def _objects(content: Annotations, place_of: dict[Id, int], label_of: dict[Id, int]) -> Objects:
    image = np.array([place_of.get(image['id'], -1) for image in content.images], dtype=np.int64)[content.image_index]
    label = content.labels({name: label_of[i] for name, i in content.categories.items() if i in label_of})
    rows = np.flatnonzero((image >= 0) & (label >= 0))
    return Objects(image[rows], label[rows], _xyxy(content.xywh[rows]), (content.crowd | content.ignored)[rows])


def _read_detections(path: str | Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise DataError(f'Detections {path} cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): expected COCO's results") from None
    if not isinstance(content, list):
        raise DataError(f"{path} holds a {type(content).__name__}: expected COCO's results, a list of detections")
    return content


def _xyxy(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
