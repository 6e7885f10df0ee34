"""How a file says that its picture is to be turned, and turning it.

A camera writes pixels in the order of its sensor, and in the EXIF block how they are to be shown. Of that block the
orientation alone is read, so that damage to any other entry does not matter.
"""

import re
import struct
from contextlib import suppress
from numbers import Real
from typing import Any

from PIL import Image

ORIENTATION = 0x0112

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Types of EXIF entries as formats of `struct`. A rational number is two integers; text is none, to other readers too.
_FORMATS = {1: 'B', 3: 'H', 4: 'I', 5: 'II', 6: 'b', 7: 'B', 8: 'h', 9: 'i', 10: 'ii', 11: 'f', 12: 'd'}


def orientation(file: Image.Image) -> int:
    """The orientation of an open image file, from 1, as it is, to 8; 1 where the file states none, or no such number.

    A PNG file may state it behind its pixels: then it is there after ``file.load()``.
    """
    value: Any = None
    if tags := getattr(file, 'tag_v2', None):
        with suppress(Exception):  # whatever Pillow makes of a damaged entry
            value = tags.get(ORIENTATION)
            value = value[0] if isinstance(value, bytes) else value
    else:
        value = _in_exif(_exif_block(file.info))
    if value is None:
        value = _in_xmp(file.info)
    return next((number for number in range(1, 9) if isinstance(value, Real) and value == number), 1)


def decode_turned(file: Image.Image) -> tuple[Image.Image, int]:
    """The image of an open file as it is to be shown, and its orientation in the file.

    Raises:
        Exception: anything that a decoder may raise for damaged pixels.
    """
    stated = orientation(file)
    if hasattr(file, 'tag_v2'):  # Pillow turns a TIFF file itself: of its entries, let it see the orientation alone
        exif = Image.Exif()
        exif[ORIENTATION] = stated
        file.getexif = lambda: exif  # type: ignore[method-assign]
        file.info.pop('xmp', None)
        file.filename = ''  # type: ignore[attr-defined]  # from a file it knows by name, Pillow maps rows as long as those of the turned image
        file.load()
        return file, stated
    file.load()
    stated = orientation(file)
    return (file.transpose(_TURNS[stated]) if stated in _TURNS else file), stated


def swaps_sides(orientation: int) -> bool:
    """Whether turning makes the width the height."""
    return orientation >= 5


def _exif_block(info: dict[Any, Any]) -> bytes:
    """The EXIF block among what Pillow found in a file; empty where there is none."""
    block = info.get('exif')
    if isinstance(block, bytes):
        return block
    text = info.get(
        'Raw profile type exif', ''
    )  # ImageMagick's way in PNG: after three lines of head, hexadecimal digits
    with suppress(ValueError, AttributeError):
        return bytes.fromhex(''.join(text.split('\n')[3:]))
    return b''


def _in_exif(block: bytes) -> float | None:
    """The number under the tag of orientation in the first directory of an EXIF block; None where there is none."""
    block = re.sub(rb'^(Exif\0\0)+', b'', block)
    order = {b'II': '<', b'MM': '>'}.get(block[:2])
    if order is None or block[2:4] not in (b'*\0', b'\0*'):
        return None
    try:
        (directory,) = struct.unpack_from(order + 'I', block, 4)
        (entries,) = struct.unpack_from(order + 'H', block, directory)
        for place in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + 'HHI', block, place)
            if tag == ORIENTATION:
                return _number(block, order, kind, count, place + 8)
    except struct.error:  # the block was cut short
        pass
    return None


def _number(block: bytes, order: str, kind: int, count: int, place: int) -> float:
    """The first number of an entry whose value, or the place of whose value, stands at ``place``; 0 where it has none.

    Raises:
        struct.error: the value lies outside the block.
    """
    if kind not in _FORMATS:
        return 0
    form = order + _FORMATS[kind]
    if struct.calcsize(form) * count > 4:  # too long for its entry, which says where it is
        (place,) = struct.unpack_from(order + 'I', block, place)
    numerator, *denominator = struct.unpack_from(form, block, place)
    return numerator / denominator[0] if denominator and denominator[0] else numerator


def _in_xmp(info: dict[Any, Any]) -> int | None:
    """The orientation that XMP states, which a file may have besides EXIF or instead of it."""
    for key in ('XML:com.adobe.xmp', 'xmp'):
        text = info.get(key)
        text = text.encode('utf-8', 'replace') if isinstance(text, str) else text
        if isinstance(text, bytes) and (match := re.search(rb'tiff:Orientation(?:="|>)([0-9])', text)):
            return int(match[1])
    return None
