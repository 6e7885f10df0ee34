"""Fields: annotations that move when a transform moves the pixels of an image. They are keys of its dict.

Each field, such as ``gt_bboxes``, declares here once how it moves. Transforms call ``move_fields`` and know no field.
So a field of your own works with all transforms, and a transform of your own works with all fields.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from frdet.errors import ConfigError, DataError

Move = Callable[..., np.ndarray]


class Field(NamedTuple):
    """Functions that move the values of a field: an array with one entry for each object.

    Each function takes the values and the (height, width) of the image after the operation, and returns as many values.
    A field without any function has no position in the image; an example is a class. For other fields, an operation
    without a function is an error.

    Attributes:
        resize: also takes the scale (x, y) from the former size to the new one.
        flip: mirrors left to right.
        crop: also takes the corner (x, y) that becomes (0, 0), and cuts off all outside the new image.
        affine: also takes the matrix (2, 3) that turns (x, y, 1) into the new (x, y).
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


#: All fields by their keys. Boxes are (n, 4) float32 xyxy in pixels of ``img``, continuous, and cut to it.
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
    """Declare the field ``name`` by the functions of ``Field``. Write down the coordinates of its values beside it."""
    FIELDS[name] = Field(**functions)


def field_names(results: dict[str, Any]) -> list[str]:
    """Keys of an image's fields: declared keys, and all keys that begin with ``gt_``."""
    return [name for name in results if name in FIELDS or name.startswith('gt_')]


def move_fields(results: dict[str, Any], operation: str, size: tuple[int, int], *how: Any) -> None:
    """Move every field of an image in place by ``operation``, which is an attribute of ``Field``.

    Args:
        size: (height, width) of the image after the operation.
        how: the further argument that ``Field`` describes.

    Raises:
        ConfigError: a field is not declared or has no function for the operation, and would stay behind in silence.
    """
    for name in field_names(results):
        field = FIELDS.get(name)
        if field == Field():
            continue
        if (move := getattr(field, operation, None)) is None:
            raise ConfigError(
                f'{results.get("img_path", "An image")} has the field {name}, which has no function for '
                f'{operation}: expected frdet.datasets.transforms.register_field({name!r}, {operation}=...) in a '
                'module of custom_imports, or no function at all if it has no position in the image'
            )
        results[name] = move(results[name], size, *how)


def select_objects(results: dict[str, Any], keep: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The fields ``names`` of the objects that ``keep`` (n,) bool marks.

    Raises:
        DataError: a field does not have n entries.
    """
    for name in names:
        if len(results[name]) != len(keep):
            raise DataError(
                f'{results.get("img_path", "An image")}: {name} has {len(results[name])} entries, and there are '
                f'{len(keep)} boxes: expected one entry for each box'
            )
    return {name: np.asarray(results[name])[keep] for name in names}
