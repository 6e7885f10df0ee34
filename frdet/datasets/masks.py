"""Masks of objects: COCO's polygons and run lengths, checked and packed into few bytes, and their pixels.

A packed mask is ``bytes``. The first byte is its kind. For polygons, the kind is the type of the coordinates: ``H`` or
``i`` for hundredths of a pixel, as COCO writes them, and ``d`` for all others. Then follow the number of polygons, the
number of coordinates in each, as int32, and the coordinates. ``r`` is a run-length encoding (RLE): height and width as
int32, then COCO's compressed text. Nothing is rounded: a mask comes back exactly as the file has it.

COCO's objects have 43 coordinates on average. Such a mask is 150 bytes with its object of Python, so the masks of
the 860,000 objects of train2017 are about 130 MB, where their lists of floats would be 1.3 GB.
"""

import math
import re
import struct
from itertools import chain
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

FURTHEST = 1e5  # pixels: the largest coordinate of a polygon, because drawing one takes memory for its length
LONGEST = 6  # characters of a run length, which then has less than 2^30 pixels
RLE = b'r'
SCALES = {b'H': 100, b'i': 100, b'd': 1}  # kind of polygons -> by how much the coordinates are multiplied

#: Polygons, each (k, 2) float64 x and y in pixels, or COCO's compressed RLE: ``size`` and ``counts`` as bytes.
Unpacked = list[np.ndarray] | dict[str, Any]


def pack_mask(mask: Any) -> bytes | None:
    """The packed form of a mask, which may be packed already. None if there is no mask: None, ``[]`` or ``{}``.

    Args:
        mask: COCO's ``segmentation``: a list of polygons ``[x1, y1, x2, y2, ...]``, one such polygon, or an RLE, whose
            ``counts`` are numbers or COCO's text.

    Raises:
        ValueError: it is none of these. The message says what it is.
    """
    if isinstance(mask, bytes):
        return mask
    if not isinstance(mask, (list, dict, type(None))):
        raise ValueError(f'is a {type(mask).__name__}: expected a list of polygons, or an RLE with size and counts')
    if not mask:
        return None
    if isinstance(mask, dict):
        return _pack_rle(mask)
    return _pack_polygons(mask if isinstance(mask[0], list) else [mask])


def _pack_polygons(polygons: list) -> bytes:
    counts = [len(one) if isinstance(one, list) else 0 for one in polygons]
    for number, count in enumerate(counts):
        if count % 2:
            raise ValueError(f'has a polygon of {count} numbers: expected pairs x, y')
        if count < 6:
            shown = f'{count // 2} points' if isinstance(polygons[number], list) else repr(polygons[number])[:40]
            raise ValueError(f'has a polygon of {shown}: expected [x1, y1, x2, y2, x3, y3, ...], three points or more')
    numbers = polygons[0] if len(polygons) == 1 else list(chain.from_iterable(polygons))
    values = np.array(numbers)
    # Of few numbers Python finds the least and the greatest faster than NumPy: files have a million objects.
    is_right = values.ndim == 1 and values.dtype.kind in 'iuf' and math.isfinite(sum(numbers))
    if not is_right or max(numbers) > FURTHEST or min(numbers) < -FURTHEST:
        raise ValueError(f'has a polygon with other values than finite numbers of pixels up to {FURTHEST:g}')
    values = values.astype(np.float64, copy=False)
    hundredths = np.rint(values * 100)
    kind = b'd'
    if (hundredths / 100).tobytes() == values.tobytes():
        kind = b'H' if min(numbers) >= 0 and max(numbers) < 2**16 / 100 else b'i'
        values = hundredths
    head = struct.pack(f'={len(counts) + 1}i', len(counts), *counts)
    return kind + head + values.astype(kind.decode(), copy=False).tobytes()


def _pack_rle(mask: dict) -> bytes:
    size, counts = mask.get('size'), mask.get('counts')
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size)):
        raise ValueError(f'is an RLE of size {size!r}: expected [height, width]')
    if isinstance(counts, list):
        fits = all(isinstance(n, int) and n >= 0 for n in counts) and sum(counts) == size[0] * size[1]
        text = coco_mask.frPyObjects({'size': size, 'counts': counts}, *size)['counts'] if fits else b''
    else:
        text = counts.encode() if isinstance(counts, str) else counts
        fits = isinstance(text, bytes) and runs_fit(text, size[0] * size[1])
    if not fits:
        raise ValueError(
            f'is an RLE whose counts are not those of {size[0]} x {size[1]} pixels (height x width): expected the '
            'lengths of runs down the columns, as numbers or as the text of pycocotools'
        )
    return RLE + np.array(size, dtype=np.int32).tobytes() + text


def unpack_mask(packed: bytes) -> Unpacked:
    """The polygons or the RLE of a packed mask."""
    kind = packed[:1]
    if kind == RLE:
        return {'size': np.frombuffer(packed, np.int32, 2, 1).tolist(), 'counts': packed[9:]}
    count = int(np.frombuffer(packed, np.int32, 1, 1)[0])
    ends = np.frombuffer(packed, np.int32, count, 5).cumsum() // 2
    values = np.frombuffer(packed, kind.decode(), -1, 5 + 4 * count).astype(np.float64) / SCALES[kind]
    return np.split(values.reshape(-1, 2), ends[:-1])


def rle_size(packed: bytes) -> list[int] | None:
    """(height, width) of a packed RLE; None for polygons, which have no size."""
    return np.frombuffer(packed, np.int32, 2, 1).tolist() if packed[:1] == RLE else None


def as_coco(packed: bytes) -> list[list[float]] | dict[str, Any]:
    """COCO's ``segmentation`` of a packed mask, for JSON."""
    mask = unpack_mask(packed)
    if isinstance(mask, dict):
        return {**mask, 'counts': mask['counts'].decode()}
    return [points.ravel().tolist() for points in mask]


def rle_of(mask: Unpacked, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed RLE of a mask in an image of ``size`` (height, width); polygons of one object are united."""
    if isinstance(mask, dict):
        return mask
    parts = coco_mask.frPyObjects([points.ravel() for points in mask], *size) if mask else []
    return parts[0] if len(parts) == 1 else coco_mask.merge(parts) if parts else _nothing(size)


def _nothing(size: tuple[int, int]) -> dict[str, Any]:
    return coco_mask.frPyObjects({'size': list(size), 'counts': [size[0] * size[1]]}, *size)


def box_of(mask: Unpacked) -> list[float]:
    """The box [x, y, width, height] around a mask, in pixels."""
    if isinstance(mask, dict):
        return coco_mask.toBbox(mask).tolist()
    points = np.concatenate(mask)
    return [*points.min(axis=0).tolist(), *np.ptp(points, axis=0).tolist()]


def decode_rle(rle: dict[str, Any], out: np.ndarray | None = None) -> np.ndarray:
    """The pixels of a compressed RLE, (height, width) uint8.

    Only the rectangle around the object is written: pycocotools' ``decode`` and a copy in the order of rows take five
    times as long for an image of 800 x 1333 pixels.

    Args:
        out: zeros of this shape that get the pixels. None makes new ones.
    """
    height, width = rle['size']
    out = np.zeros((height, width), dtype=np.uint8) if out is None else out
    lengths = _runs(rle['counts'])
    if len(lengths) < 2:  # the first run lies outside the object
        return out
    ends = np.cumsum(lengths)
    first, last = int(ends[0]) // height, -(-int(ends[-1 - len(ends) % 2]) // height)
    lengths[0] -= first * height
    if len(lengths) % 2:
        lengths[-1] -= (width - last) * height
    columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(last - first, height)
    rows = np.flatnonzero(columns.any(axis=0))
    if len(rows):
        out[rows[0] : rows[-1] + 1, first:last] = columns[:, rows[0] : rows[-1] + 1].T
    return out


def encode_mask(pixels: np.ndarray) -> bytes:
    """The packed RLE of the pixels (height, width) bool of a mask. hotcoco is twice as fast as pycocotools here."""
    from hotcoco import mask  # where masks are evaluated

    return RLE + np.array(pixels.shape, dtype=np.int32).tobytes() + mask.encode(pixels)['counts']


def runs_fit(counts: bytes, pixels: int) -> bool:
    """Whether COCO's compressed ``counts`` are well formed and are those of an image with so many pixels."""
    if not re.fullmatch(b'([P-o]{0,%d}[0-O])*' % (LONGEST - 1), counts):
        return False
    lengths = _runs(counts)
    return bool((lengths >= 0).all()) and int(lengths.sum()) == pixels


def _runs(counts: bytes) -> np.ndarray:
    """The lengths of the runs in COCO's compressed ``counts``.

    A character holds five bits from the lowest on; 32 says that the number goes on, and 16 in its last character that
    it is negative. From the fourth run on, a number is the difference from the run two before.
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes < 32)
    if not len(ends):
        return np.zeros(0, dtype=np.int64)
    starts = np.append(0, ends[:-1] + 1)
    sizes = ends - starts + 1
    places = np.arange(len(codes)) - np.repeat(starts, sizes)
    lengths = np.add.reduceat((codes & 31) << (5 * places), starts)
    lengths -= (codes[ends] >> 4 & 1) << (5 * sizes)
    for parity in (1, 2):
        lengths[parity::2] = np.cumsum(lengths[parity::2])
    return lengths
