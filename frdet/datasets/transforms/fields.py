"""Fields: annotations that follow an image when a transform moves its pixels; keys of its dict, as ``gt_bboxes``.

A field says here how it follows, once. Transforms name no field: they call ``move_fields``, so that a field of your own
needs no other transforms, and a transform of your own knows no fields.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from frdet.errors import ConfigError, DataError

Move = Callable[..., np.ndarray]


class Field(NamedTuple):
    """Functions that move the values of a field, which are an array with one entry for each object.

    Each takes the values and the (height, width) of the image after the operation, and returns as many values. Without
    any function a field has no place in the image, as a class; of other fields an operation that is None is an error.

    Attributes:
        resize: takes the scale (x, y) from the former size to the new one too.
        flip: mirrors left to right.
        crop: takes the corner (x, y) too that becomes (0, 0); what lies outside of the new image is cut off.
        affine: takes the matrix (2, 3) too by which (x, y, 1) becomes the new (x, y).
    """

    resize: Move | None = None
    flip: Move | None = None
    crop: Move | None = None
    affine: Move | None = None


def _cut(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return boxes.clip(0, [*size[::-1], *size[::-1]]).astype(np.float32)


def _flip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    x1, y1, x2, y2 = boxes.T
    return np.stack([size[1] - x2, y1, size[1] - x1, y2], axis=1)


def _warp_boxes(boxes: np.ndarray, size: tuple[int, int], matrix: np.ndarray) -> np.ndarray:
    """The smallest boxes around the moved corners."""
    corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ matrix[:, :2].T + matrix[:, 2]
    return _cut(np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1), size)


#: Every field by its key. Boxes are (n, 4) float32 xyxy in pixels of ``img``, continuous, and cut to it.
FIELDS: dict[str, Field] = {
    'gt_bboxes': Field(
        resize=lambda boxes, size, scale: _cut(boxes * np.array([*scale, *scale]), size),
        flip=_flip_boxes,
        crop=lambda boxes, size, corner: _cut(boxes - np.array([*corner, *corner], np.float64), size),
        affine=_warp_boxes,
    ),
    'gt_labels': Field(),
    'gt_crowd': Field(),
}


def register_field(name: str, **functions: Move) -> None:
    """Declare the field ``name`` by the functions of ``Field``; say beside it in which coordinates its values are."""
    FIELDS[name] = Field(**functions)


def field_names(results: dict[str, Any]) -> list[str]:
    """Keys of an image's fields: those that are declared, and all that begin with ``gt_``."""
    return [name for name in results if name in FIELDS or name.startswith('gt_')]


def move_fields(results: dict[str, Any], operation: str, size: tuple[int, int], *how: Any) -> None:
    """Let every field of an image follow ``operation``, which is one of ``Field``, in place.

    Args:
        size: (height, width) of the image after it.
        how: the argument of the operation that ``Field`` names.

    Raises:
        ConfigError: a field is not declared, or says nothing of the operation; it would stay behind in silence.
    """
    for name in field_names(results):
        field = FIELDS.get(name)
        if field == Field():
            continue
        if (move := getattr(field, operation, None)) is None:
            raise ConfigError(
                f'{results.get("img_path", "An image")} has the field {name}, of which nothing tells how it follows '
                f'{operation}: expected frdet.datasets.transforms.register_field({name!r}, {operation}=...) in a '
                'module of custom_imports, or no function at all if it has no place in the image'
            )
        results[name] = move(results[name], size, *how)


def select_objects(results: dict[str, Any], keep: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The fields ``names`` of the objects that ``keep`` (n,) bool marks.

    Raises:
        DataError: a field has not n entries.
    """
    for name in names:
        if len(results[name]) != len(keep):
            raise DataError(
                f'{results.get("img_path", "An image")}: {name} has {len(results[name])} entries, and there are '
                f'{len(keep)} boxes: expected one entry for each box'
            )
    return {name: np.asarray(results[name])[keep] for name in names}
