"""From a file to pixels."""

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from frdet.errors import BrokenImageError, DataError
from frdet.registry import TRANSFORMS


def read_image(path: str, *, name: str = '') -> np.ndarray:
    """The image at ``path`` as (H, W, 3) uint8 BGR, turned as its EXIF orientation says; grey and CMYK become colour.

    The decoder is Pillow's, as in detectron2: other decoders differ by a few grey levels. Of 16 bits the upper 8 are
    taken, of a transparent image the colours.

    Args:
        name: what to call the image in an error; its path where empty.

    Raises:
        BrokenImageError: the file is missing or is no whole image.
    """
    name = name or f'image {path}'
    try:
        with Image.open(path) as file:
            ImageOps.exif_transpose(file, in_place=True)
            return to_bgr(file)
    except FileNotFoundError:
        raise BrokenImageError(f'{name} is not on disk: add the file, or remove it from the annotations') from None
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
class LoadImage:
    """Reads ``img_path``; an ``img`` that is there already is taken as it is.

    Raises:
        BrokenImageError: the image is missing or cannot be decoded.
        DataError: its size is not the one its record states.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        name = f'Image {results.get("img_path", "given as an array")} (id {results.get("img_id", "none")})'
        if 'img' not in results:
            results['img'] = read_image(results['img_path'], name=name)
        height, width = results['img'].shape[:2]
        stated = (results.get('height', height), results.get('width', width))
        if stated != (height, width):
            raise DataError(
                f'{name} is {width}x{height}, its annotation says {stated[1]}x{stated[0]} (width x height): '
                'its boxes would be wrong; correct one of the two'
            )
        results['height'], results['width'] = height, width
        results['ori_shape'] = results['img_shape'] = (height, width)
        results['scale_factor'] = (1.0, 1.0)
        results['flip'] = False
        return results

    def __repr__(self) -> str:
        return 'LoadImage()'
