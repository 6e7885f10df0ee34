"""From a file to pixels."""

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from frdet.errors import DataError
from frdet.registry import TRANSFORMS


def read_image(path: str, *, name: str = '') -> np.ndarray:
    """The image at ``path`` as (H, W, 3) uint8 BGR, turned as its EXIF orientation says; grey and CMYK become colour.

    The decoder is Pillow's, as in detectron2: other decoders differ by a few grey levels.

    Args:
        name: what to call the image in an error; its path where empty.

    Raises:
        DataError: the file is missing or is no whole image.
    """
    name = name or f'image {path}'
    try:
        with Image.open(path) as file:
            ImageOps.exif_transpose(file, in_place=True)
            image = file if file.mode == 'RGB' else file.convert('RGB')  # which would copy
            pixels = bytearray(image.tobytes('raw', 'BGR'))  # one that may be written to
    except FileNotFoundError:
        raise DataError(f'{name} is not on disk: add the file, or remove it from the annotations') from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f'{name} cannot be decoded ({error}): replace the file') from None
    return np.frombuffer(pixels, dtype=np.uint8).reshape(image.height, image.width, 3)


@TRANSFORMS.register_module()
class LoadImage:
    """Reads ``img_path``; an ``img`` that is there already is taken as it is.

    Raises:
        DataError: the image is missing or broken, or its size is not the one its record states.
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
