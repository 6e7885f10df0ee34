"""From a file to upright pixels.

A camera writes pixels in the order of its sensor, and their orientation into the EXIF block. Only this entry of the
block is read, so that damage to other entries does not matter.
"""

import io
import math
import os
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from frdet.datasets.near_files import describe_missing
from frdet.errors import BrokenImageError, ConfigError, ImageSizeError, UserError
from frdet.registry import TRANSFORMS

#: Environment variable with the number of pixels that an image without a record may have.
LIMIT = 'FRDET_MAX_PIXELS'
#: Most pixels, height x width, of an image whose size no record states: 800 MB of colours.
MAX_PIXELS = 2**28

EXIF, LONGEST_SEGMENT = b'Exif\0\0', 2**16  # of the JPEG format

ORIENTATION = 0x0112  # number of the EXIF entry
SIDEWAYS = 5  # from this orientation on, turning exchanges width and height
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

_lock = threading.Lock()
_held: list[int | None] = []  # Pillow's limit, then None for each further image that is now read without it


def read_image(
    path: str, *, name: str = '', size: tuple[int, int] | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """The image at ``path`` as (H, W, 3) uint8 BGR, turned by its EXIF orientation. Grey and CMYK become colour.

    Pillow decodes it, as in detectron2. Other decoders differ by a few grey levels. From 16 bits the upper 8 are taken,
    from a transparent image the colours. The size is checked before decoding, because a small file may fill the memory.

    Args:
        name: name of the image in errors, by default its path.
        size: (height, width) in the record.
        max_pixels: greatest height x width. By default an image may be as large as its record states; without a record
            the limit is the environment variable ``FRDET_MAX_PIXELS``, or else ``MAX_PIXELS``.

    Raises:
        BrokenImageError: the file is missing, is no whole image, or has more pixels than the limit.
        ImageSizeError: the image does not have ``size``.
        ConfigError: ``FRDET_MAX_PIXELS`` is no number.
    """
    name = name or f'image {path}'
    try:
        with open_image(path) as file:
            if max_pixels is not None or size is None:
                _check_limit(file, name, max_pixels)
            if size is not None and sorted(size) != sorted(file.size):
                check_size(shown_size(file), size, name)
            with without_pillows_limit(file.width * file.height):
                image, turned = decode_turned(file)
            if size is not None:
                check_size((image.height, image.width), size, name, turned)
            return to_bgr(image)
    except UserError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise BrokenImageError(f'{name} {describe_missing(path)}') from None
    except MemoryError:
        raise BrokenImageError(f'{name} does not fit into memory: cut it into parts') from None
    except Exception as error:  # a decoder that reads garbage may raise anything
        reason = str(error) or type(error).__name__
        raise BrokenImageError(f'{name} cannot be decoded ({reason}): replace the file') from None


def check_size(found: tuple[int, int], stated: tuple[int, int], name: str, turned: int = 1) -> None:
    """Raise ImageSizeError unless an image, turned by the EXIF orientation ``turned``, has the size of its record.

    Both sizes are (height, width).
    """
    if found == stated:
        return
    height, width = found
    sizes = f'{name} is {width}x{height}, its annotation says {stated[1]}x{stated[0]} (width x height)'
    if turned >= SIDEWAYS and found == stated[::-1]:
        raise ImageSizeError(
            f'{sizes}: EXIF orientation {turned} of the file turns it, and the annotation is of the unturned image; '
            'annotate the turned image, or remove the orientation from the file'
        )
    raise ImageSizeError(f'{sizes}: its boxes would be wrong; correct the image or the annotation')


def _check_limit(file: ImageFile, name: str, max_pixels: int | None) -> None:
    where = 'max_pixels of LoadImage'
    if max_pixels is None:
        where, text = f'the environment variable {LIMIT}', os.environ.get(LIMIT) or str(MAX_PIXELS)
        if not text.isdecimal():
            raise ConfigError(f'The environment variable {LIMIT} is {text!r}: expected a number of pixels')
        max_pixels = int(text)
    if file.width * file.height > max_pixels:
        raise BrokenImageError(
            f'{name} is {file.width}x{file.height} (width x height), {file.width * file.height:,} pixels, more than '
            f'the limit of {max_pixels:,}: raise it by {where}, or cut the image into parts'
        )


@contextmanager
def open_image(path: str) -> Iterator[ImageFile]:
    """The image file at ``path`` after its head has been read: ``Image.open`` without the limit.

    Raises:
        OSError: the file is missing or no image.
        Exception: anything that a decoder may raise for a damaged head.
    """
    with without_pillows_limit():
        file = _identified(path)
    with file:
        yield file


def _identified(path: str) -> ImageFile:
    with suppress(UnidentifiedImageError):
        return Image.open(path)
    # Pillow reads a resolution from the EXIF block of a JPEG file, and does not accept the file if it is damaged.
    content = Path(path).read_bytes()
    with suppress(UnidentifiedImageError):
        file = Image.open(io.BytesIO(content.replace(EXIF, b'None\0\0')))
        file.info['exif'] = content.partition(EXIF)[2][:LONGEST_SEGMENT]
        return file
    raise UnidentifiedImageError('it is of no known image format')


@contextmanager
def without_pillows_limit(pixels: float = math.inf) -> Iterator[None]:
    """Lift Pillow's limit for the whole process if ``pixels``, height x width, exceed it.

    A small image keeps the limit, because decoders such as TIFF's check the limit again for what such a file may hide.
    """
    with _lock:
        limit = _held[0] if _held else Image.MAX_IMAGE_PIXELS
        is_lifted = pixels > (limit or math.inf)
        if is_lifted:
            _held.append(Image.MAX_IMAGE_PIXELS)
            Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        if is_lifted:
            with _lock:
                Image.MAX_IMAGE_PIXELS = _held.pop()  # the limit itself is popped last


def decode_turned(file: Image.Image) -> tuple[Image.Image, int]:
    """The upright image of an open file, and the orientation in the file.

    Raises:
        Exception: anything that a decoder may raise for damaged pixels.
    """
    if hasattr(file, 'tag_v2'):  # Pillow turns a TIFF file itself. It may see only the orientation of the entries.
        stated = orientation(file)
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
        value = _in_exif(file.info)
    if value is None:  # XMP may have it instead of EXIF, as text or bytes; the notation of either is searched
        text = f'{file.info.get("XML:com.adobe.xmp")} {file.info.get("xmp")}'
        match = re.search('tiff:Orientation(?:="|>)([0-9])', text)
        value = match and int(match[1])
    return next((number for number in _TURNS if value == number), 1)


def _in_exif(info: dict[Any, Any]) -> float | None:
    """The orientation in the first directory of the EXIF block in Pillow's ``info`` of a file, or None."""
    with suppress(KeyError, ValueError, AttributeError, struct.error):  # no EXIF block, no number, or it is cut off
        block = info.get('exif')
        if not isinstance(block, bytes):  # ImageMagick writes three lines, then hexadecimal digits
            block = bytes.fromhex(''.join(info['Raw profile type exif'].split('\n')[3:]))
        block = re.sub(rb'^(Exif\0\0)+', b'', block)
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


def shown_size(file: ImageFile) -> tuple[int, int]:
    """(height, width) of an image after turning. Pillow turns the size of a TIFF file itself."""
    is_to_turn = orientation(file) >= SIDEWAYS and file.format != 'TIFF'
    return file.size if is_to_turn else (file.height, file.width)


def to_bgr(image: Image.Image) -> np.ndarray:
    """The pixels of a Pillow image in the form of ``read_image``.

    Raises:
        Exception: the image cannot be decoded. A decoder that reads garbage may raise anything.
    """
    image = image if image.mode == 'RGB' else eight_bits(image).convert('RGB')  # convert always copies
    pixels = bytearray(image.tobytes('raw', 'BGR'))  # unlike bytes, it may be written to
    return np.frombuffer(pixels, dtype=np.uint8).reshape(image.height, image.width, 3)


def eight_bits(image: Image.Image) -> Image.Image:
    """Pillow takes the upper byte of 16-bit colour, but would make 16-bit grey above 255 white."""
    if image.mode == 'F':
        raise ValueError('its pixels are floating-point numbers of unknown range')
    if not image.mode.startswith('I'):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError('its pixels have 32 bits and an unknown range')
    return Image.fromarray((values >> 8).astype(np.uint8))


@TRANSFORMS.register_module()
@dataclass(kw_only=True)
class LoadImage:
    """Reads ``img_path``, or takes an ``img`` that is already in the dict.

    Args:
        max_pixels: greatest height x width; None as in ``read_image``.

    Raises:
        BrokenImageError: the image is missing, cannot be decoded or has more pixels than ``max_pixels``.
        ImageSizeError: its size differs from its record.
    """

    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.max_pixels is not None:
            check_pixels('max_pixels', self.max_pixels)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        name = f'Image {results.get("img_path", "given as an array")} (id {results.get("img_id", "none")})'
        size = (results['height'], results['width']) if {'height', 'width'} <= set(results) else None
        if 'img' not in results:
            results['img'] = read_image(results['img_path'], name=name, size=size, max_pixels=self.max_pixels)
        found = results['img'].shape[:2]
        check_size(found, size or found, name)
        results['height'], results['width'] = found
        results.update(ori_shape=found, img_shape=found, scale_factor=(1.0, 1.0), flip=False)
        return results


def check_pixels(name: str, value: Any) -> None:
    """Raise ConfigError if ``value``, the argument ``name``, is no positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f'{name} is {value!r}: expected a positive number of pixels')
