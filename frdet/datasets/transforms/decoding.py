"""Opening image files without Pillow's limit, which is one for the process and knows nothing of records."""

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

#: Pixels, height x width, of the largest picture that is read where no record states its size: 800 MB as colours.
MAX_PIXELS = 2**28

EXIF, LONGEST_SEGMENT = b'Exif\0\0', 2**16  # of the JPEG format

_lock = threading.Lock()
_held: list[int | None] = []  # Pillow's limit, then None for each other picture that is read without it at the moment


@contextmanager
def open_image(path: str) -> Iterator[ImageFile]:
    """The image file at ``path``, of which the head has been read: ``Image.open`` without the limit.

    Raises:
        OSError: there is no such file, or it is no image.
        Exception: anything that a decoder may raise for a damaged head.
    """
    with without_pillows_limit():
        file = _identified(path)
    with file:
        yield file


def _identified(path: str) -> ImageFile:
    with suppress(UnidentifiedImageError):
        return Image.open(path)
    # Pillow reads a resolution from the EXIF of a JPEG file, and takes the file for no JPEG where that is damaged.
    content = Path(path).read_bytes()
    with suppress(UnidentifiedImageError):
        file = Image.open(io.BytesIO(content.replace(EXIF, b'None\0\0')))
        file.info['exif'] = content.partition(EXIF)[2][:LONGEST_SEGMENT]
        return file
    raise UnidentifiedImageError('it is of no known image format')


@contextmanager
def without_pillows_limit(pixels: float = math.inf) -> Iterator[None]:
    """Lift Pillow's limit, for the whole process, if ``pixels``, height x width, are more: not longer than needed.

    What a small picture hides is so still refused: decoders of TIFF and others ask for the limit once more.
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
                Image.MAX_IMAGE_PIXELS = _held.pop()  # the limit itself comes last
