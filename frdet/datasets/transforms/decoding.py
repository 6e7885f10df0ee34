"""Opening image files without Pillow's limit, which is one for the process and knows nothing of records."""

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

#: Pixels, height x width, of the largest picture that is read where no record states its size: 800 MB as colours.
MAX_PIXELS = 2**28

JPEG, EXIF, LONGEST_SEGMENT = b'\xff\xd8', b'Exif\0\0', 2**16  # of the JPEG format: its first bytes, its blocks

_lock = threading.Lock()
_held: list[Any] = []  # Pillow's limit, once for each picture that is read without it at the moment


@contextmanager
def open_image(path: str) -> Iterator[ImageFile]:
    """The image file at ``path``, of which the head has been read: ``Image.open`` without the limit.

    Raises:
        OSError: there is no such file, or it is no image.
        Exception: anything that a decoder may raise for a damaged head.
    """
    with open(path, 'rb') as stream:
        try:
            file = _identified(stream, path)
        except Image.DecompressionBombError:  # of a decoder that asks for the limit by itself
            with without_pillows_limit():
                file = _identified(stream, path)
        with file:
            yield file


def _identified(stream: BinaryIO, path: str) -> ImageFile:
    stream.seek(0)
    start = stream.read(16)
    for find_decoders in (Image.preinit, Image.init):  # the common ones, then all
        find_decoders()
        for name in tuple(Image.ID):
            decoder, accepts = Image.OPEN[name]
            with suppress(SyntaxError, IndexError, TypeError, struct.error):  # what Pillow takes for a refusal
                answer = accepts is None or accepts(start)
                if answer and not isinstance(answer, str):  # a text says why the decoder cannot be used
                    stream.seek(0)
                    return decoder(stream, path)
    stream.seek(0)
    content = stream.read()
    if content.startswith(JPEG) and EXIF in content:
        return _open_without_exif(content, path)
    raise UnidentifiedImageError('it is of no known image format')


def _open_without_exif(content: bytes, path: str) -> ImageFile:
    """Pillow reads a resolution from the EXIF of a JPEG file, and takes the file for no JPEG where that is damaged."""
    file = _identified(io.BytesIO(content.replace(EXIF, b'None\0\0')), path)
    file.info['exif'] = content[content.index(EXIF) :][:LONGEST_SEGMENT]
    return file


def without_pillows_limit_for(file: ImageFile) -> AbstractContextManager[None]:
    """Within it the pixels of ``file`` can be decoded: decoders of TIFF and others ask for the limit once more."""
    limit = Image.MAX_IMAGE_PIXELS
    return nullcontext() if limit is None or file.width * file.height <= limit else without_pillows_limit()


@contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Pillow's limit is lifted, for the whole process: while a single picture above it is decoded, not longer."""
    with _lock:
        _held.append(Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _lock:
            limit = _held[0]  # that of pictures that began later is None
            _held.pop()
            if not _held:
                Image.MAX_IMAGE_PIXELS = limit
