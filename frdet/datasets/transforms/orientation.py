"""How a file says that its picture is to be turned, and turning it.

A camera writes pixels in the order of its sensor, and in the EXIF block how they are to be shown. Of that block the
orientation alone is read, so that damage to any other entry does not matter.
"""

import re
import struct
from contextlib import suppress
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
# Types of EXIF entries as formats of `struct`: of a rational number the numerator; text is no number.
_FORMATS = {1: 'B', 3: 'H', 4: 'I', 5: 'I4x', 6: 'b', 7: 'B', 8: 'h', 9: 'i', 10: 'i4x', 11: 'f', 12: 'd'}
_ORDERS = {b'II*\0': '<', b'II\0*': '<', b'MM\0*': '>', b'MM*\0': '>'}  # cameras write all four


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
    return next((number for number in _TURNS if value == number), 1)


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
        # From a file that it knows by name, Pillow maps rows as long as the turned image's.
        file.filename = ''  # type: ignore[attr-defined]
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
    if isinstance(block := info.get('exif'), bytes):
        return block
    with suppress(KeyError, ValueError, AttributeError):  # ImageMagick's way: three lines, then hexadecimal digits
        return bytes.fromhex(''.join(info['Raw profile type exif'].split('\n')[3:]))
    return b''


def _in_exif(block: bytes) -> float | None:
    """The number under the tag of orientation in the first directory of an EXIF block; None where there is none."""
    block = re.sub(rb'^(Exif\0\0)+', b'', block)
    with suppress(KeyError, struct.error):  # no such block, an entry that is no number; a block that was cut short
        order = _ORDERS[block[:4]]
        (directory,) = struct.unpack_from(f'{order}I', block, 4)
        (entries,) = struct.unpack_from(f'{order}H', block, directory)
        for place in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(f'{order}HHI', block, place)
            if tag == ORIENTATION:
                form, place = order + _FORMATS[kind], place + 8
                if struct.calcsize(form) * count > 4:  # too long for its entry, which says where it is
                    (place,) = struct.unpack_from(f'{order}I', block, place)
                return struct.unpack_from(form, block, place)[0]
    return None


def _in_xmp(info: dict[Any, Any]) -> int | None:
    """The orientation that XMP states, which a file may have besides EXIF or instead of it."""
    text = f'{info.get("XML:com.adobe.xmp")} {info.get("xmp")}'  # each is text or bytes: their notation will do
    match = re.search('tiff:Orientation(?:="|>)([0-9])', text)
    return int(match[1]) if match else None
