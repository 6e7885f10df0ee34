"""Resizing and flipping an image together with its fields."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from frdet.datasets.transforms.fields import move_fields
from frdet.datasets.transforms.loading import check_pixels
from frdet.errors import ConfigError
from frdet.ops import enlarge
from frdet.registry import TRANSFORMS

INTERPOLATIONS = {name: Image.Resampling[name.upper()] for name in ('nearest', 'bilinear', 'bicubic', 'lanczos')}


def shortest_edge_size(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """(height, width) whose shorter side is ``short_side``, or less if the longer side would exceed ``max_size``.

    As in detectron2, sides are rounded once, at the end, half upwards. If that gives 0 for a very narrow image,
    detectron2 stops; here the side is 1.
    """
    scale = short_side / min(height, width)
    sides = [short_side if side == min(height, width) else scale * side for side in (height, width)]
    if max(sides) > max_size:
        scale = max_size / max(sides)
        sides = [side * scale for side in sides]
    return max(1, int(sides[0] + 0.5)), max(1, int(sides[1] + 0.5))


def _limited_size(height: int, width: int, short_side: int, max_size: int, *, rounding: float) -> tuple[int, int]:
    """The largest size within both limits, as in MMDetection, which rounds, and in torchvision, which does not."""
    scale = min(max_size / max(height, width), short_side / min(height, width))
    return max(1, int(height * scale + rounding)), max(1, int(width * scale + rounding))


def _resize_pillow(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Pillow's pixels. Our own operator computes the same enlarged pixels in a third of the time."""
    is_enlarged = size[0] >= image.shape[0] and size[1] >= image.shape[1]
    if interpolation == 'bilinear' and is_enlarged and image.shape[2:] == (3,):
        pixels = torch.from_numpy(np.require(image, requirements=['C', 'W']))
        return enlarge(pixels, *size).permute(1, 2, 0).numpy()
    return np.asarray(Image.fromarray(image).resize(size[::-1], INTERPOLATIONS[interpolation]))


def _resize_cv2(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    import cv2  # the import takes a fifth of a second, and few users need it

    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def _resize_torch(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    return F.interpolate(pixels, size, mode='bilinear', align_corners=False)[0].permute(1, 2, 0).numpy()


#: The project whose resizing is used -> its rule for the size, and its way to compute pixels.
BACKENDS: dict[str, tuple[Callable[..., tuple[int, int]], Callable[..., np.ndarray]]] = {
    'pillow': (shortest_edge_size, _resize_pillow),
    'cv2': (partial(_limited_size, rounding=0.5), _resize_cv2),
    'torch': (partial(_limited_size, rounding=0), _resize_torch),
}


def resize_to(
    results: dict[str, Any], size: tuple[int, int], interpolation: str = 'bilinear', backend: str = 'pillow'
) -> dict[str, Any]:
    """Resize ``img`` and its fields to ``size`` (height, width)."""
    height, width = results['img'].shape[:2]
    if size != (height, width):
        results['img'] = BACKENDS[backend][1](results['img'], size, interpolation)
    scale = size[1] / width, size[0] / height
    move_fields(results, 'resize', size, scale)
    before = results.get('scale_factor', (1.0, 1.0))
    results['scale_factor'] = (before[0] * scale[0], before[1] * scale[1])
    results['img_shape'] = size
    return results


def _check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    if value not in choices:
        raise ConfigError(f'{name} is {value!r}: expected one of {", ".join(choices)}')


@TRANSFORMS.register_module()
@dataclass(kw_only=True)
class ResizeShortestEdge:
    """Resizes an image to a given shorter side and keeps its aspect ratio.

    Args:
        short_side: pixels. From several sides, one is drawn at random for every image.
        max_size: greatest length of the longer side, in pixels.
        interpolation: ``nearest``, ``bilinear`` (detectron2's), ``bicubic`` or ``lanczos``, all of Pillow.
        backend: the project whose resizing is used. ``pillow``: detectron2's, antialiased, sides rounded half upwards.
            ``cv2``: MMDetection's, bilinear without antialiasing, sides rounded half upwards. ``torch``: torchvision's,
            which is the same but rounds sides down, and pixels stay float32 instead of being rounded to 0..255.
    """

    short_side: int | Sequence[int]
    max_size: int = 1333
    interpolation: str = 'bilinear'
    backend: str = 'pillow'

    def __post_init__(self) -> None:
        self._sides = [self.short_side] if isinstance(self.short_side, int) else list(self.short_side)
        if not self._sides:
            raise ConfigError('short_side is empty: expected one or several numbers of pixels')
        for side in self._sides:
            check_pixels('short_side', side)
        check_pixels('max_size', self.max_size)
        _check_choice('interpolation', self.interpolation, INTERPOLATIONS)
        _check_choice('backend', self.backend, BACKENDS)
        if self.backend != 'pillow' and self.interpolation != 'bilinear':
            raise ConfigError(f'interpolation is {self.interpolation!r}: backend {self.backend} has bilinear only')

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        side = self._sides[0] if len(self._sides) == 1 else int(np.random.choice(self._sides))
        size = BACKENDS[self.backend][0](*results['img'].shape[:2], side, self.max_size)
        return resize_to(results, size, self.interpolation, self.backend)


@TRANSFORMS.register_module()
@dataclass(kw_only=True)
class Resize:
    """Resizes an image to one size, whatever its aspect ratio is.

    Args:
        scale: (height, width) in pixels.
        interpolation: as for ``ResizeShortestEdge``.
    """

    scale: Sequence[int]
    interpolation: str = 'bilinear'

    def __post_init__(self) -> None:
        if isinstance(self.scale, int) or len(self.scale) != 2:
            raise ConfigError(f'scale is {self.scale!r}: expected (height, width)')
        for name, side in zip(('height', 'width'), self.scale, strict=True):
            check_pixels(f'{name} of scale', side)
        _check_choice('interpolation', self.interpolation, INTERPOLATIONS)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        return resize_to(results, (self.scale[0], self.scale[1]), self.interpolation)


@TRANSFORMS.register_module()
@dataclass(kw_only=True)
class RandomFlip:
    """Mirrors an image left to right with probability ``prob``, and notes it in ``flip``."""

    prob: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.prob <= 1:
            raise ConfigError(f'prob is {self.prob!r}: expected a probability, from 0 to 1')

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        if np.random.rand() < self.prob:
            # In the layout for packing. torch flips rows ten times as fast as NumPy copies a reversed view.
            planes = np.require(results['img'].transpose(2, 0, 1), requirements=['C', 'W'])
            results['img'] = torch.from_numpy(planes).flip(2).permute(1, 2, 0).numpy()
            move_fields(results, 'flip', results['img'].shape[:2])
            results['flip'] = not results.get('flip', False)
        return results
