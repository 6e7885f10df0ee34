"""Reading the orientation in an image file, and turning the image.

A camera writes pixels in the order of its sensor, and their orientation into the EXIF block. Only this entry of the
block is read, so that damage to other entries does not matter.
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
# Types of EXIF entries as formats of `struct`. Of a rational number the numerator is read. Text is no number.
_FORMATS = {1: 'B', 3: 'H', 4: 'I', 5: 'I4x', 6: 'b', 7: 'B', 8: 'h', 9: 'i', 10: 'i4x', 11: 'f', 12: 'd'}
_ORDERS = {b'II*\0': '<', b'II\0*': '<', b'MM\0*': '>', b'MM*\0': '>'}  # cameras write all four


def orientation(file: Image.Image) -> int:
    """The EXIF orientation of an open image file, from 1 (upright) to 8. It is 1 if the file has no valid number.

    A PNG file may have it after the pixels. Then it is known after ``file.load()``.
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
    """The upright image of an open file, and the orientation in the file.

    Raises:
        Exception: anything that a decoder may raise for damaged pixels.
    """
    stated = orientation(file)
    if hasattr(file, 'tag_v2'):  # Pillow turns a TIFF file itself. It may see only the orientation of the entries.
        exif = Image.Exif()
        exif[ORIENTATION] = stated
        file.getexif = lambda: exif  # type: ignore[method-assign]
        file.info.pop('xmp', None)
        # If Pillow knows the name of the file, it maps rows of the turned image's length.
        file.filename = ''  # type: ignore[attr-defined]
        file.load()
        return file, stated
    file.load()
    stated = orientation(file)
    return (file.transpose(_TURNS[stated]) if stated in _TURNS else file), stated


def swaps_sides(orientation: int) -> bool:
    """Whether turning exchanges width and height."""
    return orientation >= 5


def _exif_block(info: dict[Any, Any]) -> bytes:
    """The EXIF block in Pillow's ``info`` of a file; empty if there is none."""
    if isinstance(block := info.get('exif'), bytes):
        return block
    with suppress(KeyError, ValueError, AttributeError):  # ImageMagick writes three lines, then hexadecimal digits
        return bytes.fromhex(''.join(info['Raw profile type exif'].split('\n')[3:]))
    return b''


def _in_exif(block: bytes) -> float | None:
    """The orientation in the first directory of an EXIF block, or None."""
    block = re.sub(rb'^(Exif\0\0)+', b'', block)
    with suppress(KeyError, struct.error):  # no EXIF block, an entry that is no number, or a block that is cut off
        order = _ORDERS[block[:4]]
        (directory,) = struct.unpack_from(f'{order}I', block, 4)
        (entries,) = struct.unpack_from(f'{order}H', block, directory)
        for place in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(f'{order}HHI', block, place)
            if tag == ORIENTATION:
                form, place = order + _FORMATS[kind], place + 8
                if struct.calcsize(form) * count > 4:  # the entry has the address of a long value
                    (place,) = struct.unpack_from(f'{order}I', block, place)
                return struct.unpack_from(form, block, place)[0]
    return None


def _in_xmp(info: dict[Any, Any]) -> int | None:
    """The orientation in XMP, which a file may have besides EXIF or instead of it."""
    text = f'{info.get("XML:com.adobe.xmp")} {info.get("xmp")}'  # text or bytes; the notation of either is searched
    match = re.search('tiff:Orientation(?:="|>)([0-9])', text)
    return int(match[1]) if match else None
