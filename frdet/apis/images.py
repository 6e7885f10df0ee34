"""Images from users: each becomes a record for the test pipeline, or an error that says what is accepted."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch

from frdet.datasets.transforms.loading import decode_turned, to_bgr
from frdet.errors import BrokenImageError, ConfigError, DataError

Image = str | os.PathLike[str] | np.ndarray | PIL.Image.Image
ChannelOrder = Literal['bgr', 'rgb']

ACCEPTED = 'a path, a PIL image, or a NumPy array (H, W, 3) of uint8'
_NO_LIST = (str, bytes, bytearray, memoryview, os.PathLike, torch.Tensor, Mapping, Set)


def is_single(images: Any) -> bool:
    """Whether ``images`` is one image or no collection of images. An array (N, H, W, 3) is a collection."""
    if isinstance(images, np.ndarray):
        return images.ndim != 4
    return isinstance(images, _NO_LIST) or hasattr(images, 'read') or not isinstance(images, Iterable)


def as_record(image: Any, number: int, channel_order: ChannelOrder = 'bgr') -> dict[str, Any]:
    """A record for the test pipeline: ``img_id``, which is ``number``, and ``img_path`` or ``img`` (H, W, 3) uint8 BGR.

    Args:
        image: a path, a PIL image, which is turned by its EXIF orientation, or an array (H, W, 3) of uint8.
        number: position of the image among the given ones, for errors.
        channel_order: order of the channels of arrays.

    Raises:
        ConfigError: ``channel_order`` is unknown.
        DataError: ``image`` has another type.
        BrokenImageError: a PIL image cannot be decoded.
    """
    if channel_order not in ('bgr', 'rgb'):
        raise ConfigError(f"channel_order is {channel_order!r}: expected 'bgr', as OpenCV reads, or 'rgb'")
    if isinstance(image, (str, os.PathLike)):
        return {'img_path': os.fsdecode(image), 'img_id': number}
    if isinstance(image, PIL.Image.Image):
        return {'img': _from_pil(image, number), 'img_id': number}
    if isinstance(image, np.ndarray):
        return {'img': _from_array(image, number, channel_order), 'img_id': number}
    remedy = ''
    if isinstance(image, torch.Tensor):
        remedy = '. Convert a tensor (3, H, W) of uint8 by tensor.permute(1, 2, 0).cpu().numpy()'
    elif isinstance(image, (bytes, bytearray, memoryview)) or hasattr(image, 'read'):
        remedy = '. Decode it first: PIL.Image.open(io.BytesIO(data)), or PIL.Image.open(file)'
    raise DataError(f'Image {number} is of type {type(image).__name__}: expected {ACCEPTED}{remedy}')


@contextmanager
def named_as_given(image: Any, number: int) -> Iterator[None]:
    """Errors of reading the image in this context name the image as it was given, and mention no annotations."""
    try:
        yield
    except BrokenImageError as error:
        message = str(error).replace(f' (id {number})', '', 1)
        if isinstance(image, (str, os.PathLike)):
            path = os.fsdecode(image)
            if os.path.isdir(path):
                message = f'Image {path} is a folder: give the paths of the images in it'
            elif re.match(r'[a-zA-Z][\w+.-]+:/', path):
                message = f'Image {path} is an address: download it, and give the path of the file'
            elif not os.path.exists(path):
                message = f'Image {path} is not on disk: check the path'
        raise BrokenImageError(message) from None


def _from_pil(image: PIL.Image.Image, number: int) -> np.ndarray:
    try:
        return to_bgr(decode_turned(image)[0])
    except Exception as error:  # a decoder that reads garbage may raise anything
        reason = str(error) or type(error).__name__
        raise BrokenImageError(
            f'Image {number}, a PIL image, cannot be decoded ({reason}): its file must be whole, and still be open'
        ) from None


def _from_array(image: np.ndarray, number: int, channel_order: ChannelOrder) -> np.ndarray:
    if image.dtype != np.uint8 or image.size == 0 or image.shape[2:] != (3,):
        raise DataError(
            f'Image {number} is an array {image.shape} of {image.dtype}: expected (H, W, 3) of uint8, '
            f'{channel_order.upper()}{_remedy(image)}'
        )
    # Transforms may need contiguous memory, and may write to it.
    return np.require(image if channel_order == 'bgr' else image[..., ::-1], requirements=['C', 'W'])


def _remedy(image: np.ndarray) -> str:
    if image.dtype.kind == 'f':
        return '. Convert values from 0 to 1 by (image * 255).round().astype(numpy.uint8)'
    if image.dtype == np.uint16:
        return '. Convert 16 bits by (image >> 8).astype(numpy.uint8), as frdet does for files'
    if image.shape[2:] == (4,):
        return '. Drop the alpha channel by image[..., :3]'
    if image.ndim == 2 or image.shape[2:] == (1,):
        return '. Convert a grey image by numpy.dstack([image] * 3)'
    if image.ndim == 3 and image.shape[0] == 3:
        return '. Put the channels last by image.transpose(1, 2, 0)'
    return ''
