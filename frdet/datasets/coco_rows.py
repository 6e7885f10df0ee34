"""The annotations of a COCO file as a table of numbers, which needs an eighth of the memory of their dicts."""

import math
import struct
from collections.abc import Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np

ROW = struct.Struct('=3q5d2b')
KIND = np.dtype(
    [
        *((field, np.int64) for field in ('id', 'image_id', 'category_id')),
        ('bbox', np.float64, 4),
        ('area', np.float64),
        *((field, np.int8) for field in ('iscrowd', 'ignore')),
    ]
)


class CocoRows(Sequence[dict[str, Any]]):
    """Annotations whose fields are numbers as in COCO's own files. An item becomes a dict when it is asked for."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.masks: list[bytes | None] | None = None  # the packed masks, if they are read

    def add(self, item: dict[str, Any]) -> bool:
        """Append an annotation. It is not taken, and the result is False, if a field has another type or is missing."""
        try:
            area, ignore = item.get('area'), item.get('ignore')
            values = (
                item['id'],
                item['image_id'],
                item['category_id'],
                *item['bbox'],
                math.nan if area is None else area,
                item.get('iscrowd', 0),
                0 if ignore is None else ignore,
            )
            row = ROW.pack(*values)
        except (KeyError, TypeError, OverflowError, struct.error):
            return False
        if bool in map(type, values):  # it would be packed as a number
            return False
        self._bytes += row
        return True

    @cached_property
    def table(self) -> np.ndarray:
        """(M,) of ``KIND``. No item can be added any more."""
        return np.frombuffer(self._bytes, dtype=KIND)

    def __len__(self) -> int:
        return len(self._bytes) // ROW.size

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        number, image, category, *box, area, crowd, ignore = ROW.unpack_from(
            self._bytes, range(len(self))[index] * ROW.size
        )
        item = dict(id=number, image_id=image, category_id=category, bbox=[_short(v) for v in box], area=_short(area))
        masks = {} if self.masks is None else {'segmentation': self.masks[index]}
        return {**item, 'iscrowd': crowd, 'ignore': ignore, **masks}


def _short(value: float) -> float:
    """12 for 12.0, as files have it."""
    return int(value) if value.is_integer() else value
