"""Opening image files without Pillow's limit of pixels, which ignores the sizes in records."""

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

#: Most pixels, height x width, of an image whose size no record states: 800 MB of colours.
MAX_PIXELS = 2**28

EXIF, LONGEST_SEGMENT = b'Exif\0\0', 2**16  # of the JPEG format

_lock = threading.Lock()
_held: list[int | None] = []  # Pillow's limit, then None for each further image that is now read without it


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
