"""From a file to pixels."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from frdet.datasets.near_files import describe_missing
from frdet.datasets.transforms.decoding import MAX_PIXELS, open_image, without_pillows_limit
from frdet.datasets.transforms.orientation import decode_turned, orientation, swaps_sides
from frdet.errors import BrokenImageError, ConfigError, ImageSizeError, UserError
from frdet.registry import TRANSFORMS

#: Environment variable with the number of pixels that an image without a record may have.
LIMIT = 'FRDET_MAX_PIXELS'


def read_image(
    path: str, *, name: str = '', size: tuple[int, int] | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """The image at ``path`` as (H, W, 3) uint8 BGR, turned as its EXIF orientation says; grey and CMYK become colour.

    The decoder is Pillow's, as in detectron2: other decoders differ by a few grey levels. Of 16 bits the upper 8 are
    taken, of a transparent image the colours. The size is checked before pixels are decoded: a small file may claim,
    and fill, all memory.

    Args:
        name: what to call the image in an error; its path where empty.
        size: (height, width) that a record states.
        max_pixels: the largest height x width. Where it is None, an image as large as its record states is read,
            and of others the largest is given by the environment variable ``FRDET_MAX_PIXELS``, else ``MAX_PIXELS``.

    Raises:
        BrokenImageError: the file is missing, is no whole image, or has more pixels than the limit.
        ImageSizeError: the image is not of ``size``.
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


def to_bgr(image: Image.Image) -> np.ndarray:
    """The pixels of an image of Pillow's as ``read_image`` gives them.

    Raises:
        Exception: it cannot be decoded; a decoder that reads garbage may raise anything.
    """
    image = image if image.mode == 'RGB' else _eight_bits(image).convert('RGB')  # which would copy
    pixels = bytearray(image.tobytes('raw', 'BGR'))  # one that may be written to
    return np.frombuffer(pixels, dtype=np.uint8).reshape(image.height, image.width, 3)


def check_size(found: tuple[int, int], stated: tuple[int, int], name: str, turned: int = 1) -> None:
    """See that an image is as large as its record states; both sizes are (height, width).

    Args:
        turned: the EXIF orientation by which the image was turned.

    Raises:
        ImageSizeError: it is not.
    """
    if found == stated:
        return
    height, width = found
    sizes = f'{name} is {width}x{height}, its annotation says {stated[1]}x{stated[0]} (width x height)'
    if swaps_sides(turned) and found == stated[::-1]:
        raise ImageSizeError(
            f'{sizes}: EXIF orientation {turned} of the file turns it, and the annotation is of the unturned image; '
            'annotate it as turned, or remove the orientation from the file'
        )
    raise ImageSizeError(f'{sizes}: its boxes would be wrong; correct one of the two')


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


def shown_size(file: ImageFile) -> tuple[int, int]:
    """(height, width) of an image once turned. That of a TIFF file Pillow gives so already."""
    is_to_turn = swaps_sides(orientation(file)) and file.format != 'TIFF'
    return file.size if is_to_turn else (file.height, file.width)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow takes the upper byte of 16-bit colour, but of 16-bit grey it would make all above 255 white."""
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
    """Reads ``img_path``; an ``img`` that is there already is taken as it is.

    Args:
        max_pixels: the largest height x width that is read. None reads an image as large as its record states, whatever
            that is; see ``read_image`` for images without a record.

    Raises:
        BrokenImageError: the image is missing, cannot be decoded or has more pixels than ``max_pixels``.
        ImageSizeError: its size is not the one its record states.
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
