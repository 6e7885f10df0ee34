"""Resizing and flipping an image together with its boxes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.ops import enlarge
from frdet.registry import TRANSFORMS

INTERPOLATIONS = {
    'nearest': Image.Resampling.NEAREST,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
}


def shortest_edge_size(height: int, width: int, short_side: int, max_size: int) -> tuple[int, int]:
    """(height, width) whose shorter side is ``short_side``, or less where the longer would exceed ``max_size``.

    detectron2's rule: sides are rounded once, at the end, half upwards. Where that gives 0, of a very narrow image,
    detectron2 stops; here the side is 1.
    """
    scale = short_side / min(height, width)
    sides = [short_side if side == min(height, width) else scale * side for side in (height, width)]
    if max(sides) > max_size:
        scale = max_size / max(sides)
        sides = [side * scale for side in sides]
    return _at_least_one(int(sides[0] + 0.5), int(sides[1] + 0.5))


def _at_least_one(height: int, width: int) -> tuple[int, int]:
    return max(1, height), max(1, width)


def _both_limits(height: int, width: int, short_side: int, max_size: int) -> tuple[float, float]:
    """Unrounded (height, width), the largest within both limits: the rule of MMDetection and torchvision."""
    scale = min(max_size / max(height, width), short_side / min(height, width))
    return height * scale, width * scale


def _mmdetection_size(*args: int) -> tuple[int, int]:
    height, width = _both_limits(*args)
    return _at_least_one(int(height + 0.5), int(width + 0.5))


def _torchvision_size(*args: int) -> tuple[int, int]:
    height, width = _both_limits(*args)
    return _at_least_one(math.floor(height), math.floor(width))


def _resize_pillow(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Pillow's pixels; from our own operator, which takes a third of the time, where that has the same."""
    is_enlarged = size[0] >= image.shape[0] and size[1] >= image.shape[1]
    if interpolation == 'bilinear' and is_enlarged and image.shape[2:] == (3,):
        pixels = torch.from_numpy(np.require(image, requirements=['C', 'W']))
        return enlarge(pixels, *size).permute(1, 2, 0).numpy()
    return np.asarray(Image.fromarray(image).resize(size[::-1], INTERPOLATIONS[interpolation]))


def _resize_cv2(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def _resize_torch(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    return F.interpolate(pixels, size, mode='bilinear', align_corners=False)[0].permute(1, 2, 0).numpy()


#: Whose resizing it is: the rule for the size, and how pixels are computed.
BACKENDS: dict[str, tuple[Callable[..., tuple[int, int]], Callable[..., np.ndarray]]] = {
    'pillow': (shortest_edge_size, _resize_pillow),
    'cv2': (_mmdetection_size, _resize_cv2),
    'torch': (_torchvision_size, _resize_torch),
}


def resize_to(
    results: dict[str, Any], size: tuple[int, int], interpolation: str = 'bilinear', backend: str = 'pillow'
) -> dict[str, Any]:
    """Resize ``img`` to ``size`` (height, width), and scale and cut the boxes."""
    height, width = results['img'].shape[:2]
    if size != (height, width):
        results['img'] = BACKENDS[backend][1](results['img'], size, interpolation)
    x_scale, y_scale = size[1] / width, size[0] / height
    if 'gt_bboxes' in results:
        boxes = results['gt_bboxes'].astype(np.float64) * [x_scale, y_scale, x_scale, y_scale]
        boxes = boxes.clip(0, [size[1], size[0], size[1], size[0]])
        results['gt_bboxes'] = boxes.astype(np.float32)
    before = results.get('scale_factor', (1.0, 1.0))
    results['scale_factor'] = (before[0] * x_scale, before[1] * y_scale)
    results['img_shape'] = size
    return results


def _check_interpolation(name: str) -> str:
    if name not in INTERPOLATIONS:
        raise ConfigError(f'interpolation is {name!r}: expected one of {", ".join(INTERPOLATIONS)}')
    return name


def _check_side(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f'{name} is {value!r}: expected a positive number of pixels')
    return value


@TRANSFORMS.register_module()
class ResizeShortestEdge:
    """Resizes to a given shorter side, keeping the shape.

    Args:
        short_side: pixels; of several, one is drawn for every image.
        max_size: the longer side is at most this.
        interpolation: ``nearest``, ``bilinear`` (detectron2's), ``bicubic`` or ``lanczos``, all of Pillow.
        backend: whose resizing it is. ``pillow``: detectron2's, antialiased, sides rounded half upwards. ``cv2``:
            MMDetection's, bilinear without antialiasing, sides rounded half upwards. ``torch``: torchvision's, the same
            filter but sides rounded down, and pixels stay float32 instead of being rounded to 0..255.
    """

    def __init__(
        self,
        *,
        short_side: int | Sequence[int],
        max_size: int = 1333,
        interpolation: str = 'bilinear',
        backend: str = 'pillow',
    ):
        sides = (short_side,) if isinstance(short_side, int) else tuple(short_side)
        if not sides:
            raise ConfigError('short_side is empty: expected a number of pixels or several')
        self.short_side = tuple(_check_side('short_side', side) for side in sides)
        self.max_size = _check_side('max_size', max_size)
        self.interpolation = _check_interpolation(interpolation)
        if backend not in BACKENDS:
            raise ConfigError(f'backend is {backend!r}: expected one of {", ".join(BACKENDS)}')
        if backend != 'pillow' and interpolation != 'bilinear':
            raise ConfigError(f'interpolation is {interpolation!r}: backend {backend} has bilinear only')
        self.backend = backend

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        side = self.short_side[0] if len(self.short_side) == 1 else int(np.random.choice(self.short_side))
        height, width = results['img'].shape[:2]
        size = BACKENDS[self.backend][0](height, width, side, self.max_size)
        return resize_to(results, size, self.interpolation, self.backend)

    def __repr__(self) -> str:
        return f'ResizeShortestEdge(short_side={self.short_side}, max_size={self.max_size}, backend={self.backend})'


@TRANSFORMS.register_module()
class Resize:
    """Resizes to one size, whatever the shape was.

    Args:
        scale: (height, width) in pixels.
        interpolation: as for ``ResizeShortestEdge``.
    """

    def __init__(self, *, scale: Sequence[int], interpolation: str = 'bilinear'):
        if isinstance(scale, int) or len(scale) != 2:
            raise ConfigError(f'scale is {scale!r}: expected (height, width)')
        self.scale = (_check_side('height of scale', scale[0]), _check_side('width of scale', scale[1]))
        self.interpolation = _check_interpolation(interpolation)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        return resize_to(results, self.scale, self.interpolation)

    def __repr__(self) -> str:
        return f'Resize(scale={self.scale})'


@TRANSFORMS.register_module()
class RandomFlip:
    """Mirrors left to right with probability ``prob``; ``flip`` tells whether it did."""

    def __init__(self, *, prob: float = 0.5):
        if not 0 <= prob <= 1:
            raise ConfigError(f'prob is {prob!r}: expected a probability, from 0 to 1')
        self.prob = prob

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        if np.random.rand() < self.prob:
            width = results['img'].shape[1]
            # In the layout that packing needs; torch turns rows ten times as fast as NumPy copies a reversed view.
            planes = np.require(results['img'].transpose(2, 0, 1), requirements=['C', 'W'])
            results['img'] = torch.from_numpy(planes).flip(2).permute(1, 2, 0).numpy()
            if 'gt_bboxes' in results:
                x1, y1, x2, y2 = results['gt_bboxes'].T
                results['gt_bboxes'] = np.stack([width - x2, y1, width - x1, y2], axis=1)
            results['flip'] = not results.get('flip', False)
        return results

    def __repr__(self) -> str:
        return f'RandomFlip(prob={self.prob})'
