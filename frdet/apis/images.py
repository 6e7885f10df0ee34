"""Images of users for a detector: every form that is accepted, and an error in words for every other one."""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import Any, Literal, TypeVar

import numpy as np
import PIL.Image
import torch

from frdet.datasets.transforms.loading import decode_turned, to_bgr
from frdet.errors import BrokenImageError, ConfigError, DataError

Item = TypeVar('Item')
Image = str | os.PathLike[str] | np.ndarray | PIL.Image.Image | torch.Tensor
ChannelOrder = Literal['bgr', 'rgb']

_NO_LIST = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, Set)


def prepare(
    images: Any,
    pipeline: Callable[[dict[str, Any]], Item],
    channel_order: ChannelOrder = 'bgr',
    on_broken: Callable[[BrokenImageError], None] | None = None,
) -> Iterator[Item]:
    """The result of ``pipeline`` for the record of each image, or of the only one.

    ``on_broken`` is called with the error of an image that is missing or cannot be decoded, and the image is skipped.
    None raises the error. The error names the image as it was given, and mentions no annotations.
    """
    for number, image in enumerate([images] if is_single(images) else images):
        try:
            prepared = pipeline(as_record(image, number, channel_order))
        except BrokenImageError as error:
            broken = BrokenImageError(_as_given(str(error), image, number))
            if on_broken is None:
                raise broken from None
            on_broken(broken)
        else:
            yield prepared


def batches(items: Iterable[Item], batch_size: int) -> Iterator[list[Item]]:
    """``items`` in lists of ``batch_size``, made as they are asked for. The last list may be shorter.

    Raises:
        ConfigError: ``batch_size`` is no positive number. This is raised at once.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ConfigError(f'batch_size is {batch_size!r}: expected at least 1 image')
    rest = iter(items)
    return iter(lambda: list(itertools.islice(rest, batch_size)), [])


def is_single(images: Any) -> bool:
    """Whether ``images`` is one image or no collection of images. Arrays and tensors with four axes are."""
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return images.ndim != 4
    return isinstance(images, _NO_LIST) or hasattr(images, 'read') or not isinstance(images, Iterable)


def as_record(image: Any, number: int, channel_order: ChannelOrder = 'bgr') -> dict[str, Any]:
    """A record for the test pipeline: ``img_id``, which is ``number``, and ``img_path`` or ``img`` (H, W, 3) uint8 BGR.

    A PIL image is turned by its EXIF orientation. ``number`` is the position of the image among the given ones.

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
    if isinstance(image, torch.Tensor):
        return {'img': _from_tensor(image, number, channel_order), 'img_id': number}
    remedy = ''
    if isinstance(image, (bytes, bytearray, memoryview)) or hasattr(image, 'read'):
        remedy = '. Decode it first: PIL.Image.open(io.BytesIO(data)), or PIL.Image.open(file)'
    raise DataError(
        f'Image {number} is of type {type(image).__name__}: expected a path, a PIL image, a NumPy array (H, W, 3) or a '
        f'tensor (3, H, W) of uint8{remedy}'
    )


def _as_given(message: str, image: Any, number: int) -> str:
    path = os.fsdecode(image) if isinstance(image, (str, os.PathLike)) else ''
    if os.path.isdir(path):
        return f'Image {path} is a folder: give the paths of the images in it'
    if re.match(r'[a-zA-Z][\w+.-]+:/', path):
        return f'Image {path} is an address: download it, and give the path of the file'
    if path and not os.path.exists(path):
        return f'Image {path} is not on disk: check the path'
    return message.replace(f' (id {number})', '', 1)


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
        remedies = {
            'Convert values from 0 to 1 by (image * 255).round().astype(numpy.uint8)': image.dtype.kind == 'f',
            'Convert 16 bits by (image >> 8).astype(numpy.uint8), as frdet does for files': image.dtype == np.uint16,
            'Drop the alpha channel by image[..., :3]': image.shape[2:] == (4,),
            'Convert a grey image by numpy.dstack([image] * 3)': image.ndim == 2 or image.shape[2:] == (1,),
            'Put the channels last by image.transpose(1, 2, 0)': image.ndim == 3 and image.shape[0] == 3,
        }
        raise DataError(
            f'Image {number} is an array {image.shape} of {image.dtype}: expected (H, W, 3) of uint8, '
            f'{channel_order.upper()}{_first(remedies)}'
        )
    # Transforms may need contiguous memory, and may write to it.
    return np.require(image if channel_order == 'bgr' else image[..., ::-1], requirements=['C', 'W'])


def _from_tensor(image: torch.Tensor, number: int, channel_order: ChannelOrder) -> np.ndarray:
    shape = tuple(image.shape)
    if image.dtype != torch.uint8 or 0 in shape or len(shape) != 3 or shape[0] != 3:
        remedies = {
            'Convert values from 0 to 1 by (image * 255).round().to(torch.uint8)': image.is_floating_point(),
            'Drop the alpha channel by image[:3]': len(shape) == 3 and shape[0] == 4,
            'Convert a grey image by image.expand(3, -1, -1)': len(shape) == 2 or (len(shape) == 3 and shape[0] == 1),
            'Put the channels first by image.permute(2, 0, 1)': len(shape) == 3 and shape[2] == 3,
        }
        raise DataError(
            f'Image {number} is a tensor {shape} of {str(image.dtype).removeprefix("torch.")}: expected (3, H, W) of '
            f'uint8, {channel_order.upper()}{_first(remedies)}'
        )
    return _from_array(image.permute(1, 2, 0).cpu().numpy(), number, channel_order)


def _first(remedies: dict[str, bool]) -> str:
    return next((f'. {remedy}' for remedy, helps in remedies.items() if helps), '')
