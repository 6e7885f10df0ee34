"""The field ``gt_masks``: how masks move with the pixels of their image, and how they become pixels.

It is an object array (n,) with an entry for each object: a list of polygons, each (k, 2) float64 x and y in pixels of
``img``, continuous, or a bitmap (H, W) of ``img``, where 0 is outside the object. Polygons move exactly and are drawn
once, when the image is packed. A bitmap takes the nearest pixel, because a mask has no values between 0 and 1.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from frdet.datasets.masks import decode_rle, rle_of, unpack_mask

Entry = list[np.ndarray] | np.ndarray


def entries_of(packed: Sequence[bytes]) -> np.ndarray:
    """The field of packed masks; an RLE becomes a bitmap."""
    return _field(decode_rle(mask) if isinstance(mask, dict) else mask for mask in map(unpack_mask, packed))


def _field(entries: Iterable[Entry]) -> np.ndarray:
    entries = list(entries)
    field = np.empty(len(entries), dtype=object)
    for k, entry in enumerate(entries):  # assigned at once, bitmaps of one size would become one array
        field[k] = entry
    return field


def warp_masks(masks: Iterable[Entry], size: tuple[int, int], matrix: Any) -> np.ndarray:
    """Masks after the affine map ``matrix`` (2, 3) of (x, y, 1), in an image of ``size`` (height, width).

    Parts of polygons outside the image stay, and are not drawn.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    return _moved(masks, matrix, lambda bitmap: _warp_bitmap(bitmap, size, matrix))


def _moved(masks: Iterable[Entry], matrix: np.ndarray, pixels: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Polygons after ``matrix``, and bitmaps after ``pixels``."""
    return _field(
        [points @ matrix[:, :2].T + matrix[:, 2] for points in mask] if isinstance(mask, list) else pixels(mask)
        for mask in masks
    )


def _warp_bitmap(bitmap: np.ndarray, size: tuple[int, int], matrix: np.ndarray) -> np.ndarray:
    """The bitmap of ``size`` whose pixels are those at their centres before the map; 0 from outside."""
    (a, b, c), (d, e, f), _ = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    x, y = np.arange(size[1]) + 0.5, np.arange(size[0])[:, None] + 0.5
    # Without shear, columns depend on x alone and rows on y alone: one row and one column of places are enough.
    columns = np.floor(a * x + c + (b * y if b else 0)).astype(np.int64)
    rows = np.floor(e * y + f + (d * x if d else 0)).astype(np.int64)
    has_column, has_row = (columns >= 0) & (columns < bitmap.shape[1]), (rows >= 0) & (rows < bitmap.shape[0])
    picked = bitmap[rows.clip(0, bitmap.shape[0] - 1), columns.clip(0, bitmap.shape[1] - 1)]
    return picked if has_column.all() and has_row.all() else picked * (has_column & has_row)


def resize_masks(masks: Iterable[Entry], size: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    """``resize`` of the field. Bitmaps are resized by Pillow, as in detectron2."""
    matrix = np.array([[scale[0], 0, 0], [0, scale[1], 0]])
    return _moved(
        masks, matrix, lambda bitmap: np.asarray(Image.fromarray(bitmap).resize(size[::-1], Image.Resampling.NEAREST))
    )


def flip_masks(masks: Iterable[Entry], size: tuple[int, int]) -> np.ndarray:
    """``flip`` of the field."""
    return warp_masks(masks, size, [[-1, 0, size[1]], [0, 1, 0]])


def crop_masks(masks: Iterable[Entry], size: tuple[int, int], corner: Sequence[float]) -> np.ndarray:
    """``crop`` of the field."""
    return warp_masks(masks, size, [[1, 0, -corner[0]], [0, 1, -corner[1]]])


def resize_drawn(masks: np.ndarray, before: tuple[int, int], size: tuple[int, int], backend: str) -> np.ndarray:
    """Resizing from ``before`` to ``size`` by those projects that draw masks first, and take the nearest pixels then.

    Their nearest pixel is the one at or before the place of the upper left corner, and not of the centre.

    Args:
        backend: ``torch`` for torchvision's pixels, ``cv2`` for MMDetection's.
    """
    drawn = draw_masks(masks, before)
    if backend == 'torch' and len(masks):
        return _field(F.interpolate(torch.from_numpy(drawn)[:, None], size, mode='nearest')[:, 0].numpy())
    return _field(map(partial(_resize_cv2, size=size), drawn))


def _resize_cv2(bitmap: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2  # the import takes a fifth of a second, and few users need it

    return cv2.resize(bitmap, size[::-1], interpolation=cv2.INTER_NEAREST)


def draw_masks(masks: Sequence[Entry] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n, height, width) uint8: 1 inside each of the masks, as pycocotools draws polygons; those of one are united."""
    drawn = np.zeros((len(masks), *size), dtype=np.uint8)
    for mask, pixels in zip(masks, drawn, strict=True):
        if isinstance(mask, list):
            decode_rle(rle_of(mask, size), pixels)
        else:
            pixels[...] = mask != 0
    return drawn
