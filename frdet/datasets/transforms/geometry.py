"""Resizing and flipping an image together with its fields: annotations that move with the pixels.

Fields are keys of the image's dict. Each one, such as ``gt_bboxes``, declares here once how it moves. Transforms call
``move_fields`` and know no field. So a field of your own works with all transforms, and a transform of your own works
with all fields.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from frdet.datasets.transforms.loading import check_pixels
from frdet.datasets.transforms.masks import crop_masks, flip_masks, resize_drawn, resize_masks, warp_masks
from frdet.errors import ConfigError, DataError
from frdet.ops import enlarge
from frdet.registry import TRANSFORMS

INTERPOLATIONS = {name: Image.Resampling[name.upper()] for name in ('nearest', 'bilinear', 'bicubic', 'lanczos')}
Move = Callable[..., np.ndarray]


class Field(NamedTuple):
    """Functions that move the values of a field: an array with one entry for each object.

    Each function takes the values and the (height, width) of the image after the operation, and returns as many values.
    A field without any function has no position in the image; an example is a class. For other fields, an operation
    without a function is an error.

    Attributes:
        resize: also takes the scale (x, y) from the former size to the new one.
        flip: mirrors left to right.
        crop: also takes the corner (x, y) that becomes (0, 0), and cuts off all outside the new image.
        affine: also takes the matrix (2, 3) that turns (x, y, 1) into the new (x, y).
    """

    resize: Move | None = None
    flip: Move | None = None
    crop: Move | None = None
    affine: Move | None = None


def _cut(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return boxes.clip(0, [*size[::-1], *size[::-1]]).astype(np.float32)


def _flip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    x1, y1, x2, y2 = boxes.T
    return np.stack([size[1] - x2, y1, size[1] - x1, y2], axis=1)


def _warp_boxes(boxes: np.ndarray, size: tuple[int, int], matrix: np.ndarray) -> np.ndarray:
    """The smallest boxes around the moved corners."""
    corners = boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ matrix[:, :2].T + matrix[:, 2]
    return _cut(np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1), size)


#: All fields by their keys. Boxes are (n, 4) float32 xyxy in pixels of ``img``, continuous, and cut to it. Masks are
#: described in ``masks.py``.
FIELDS: dict[str, Field] = {
    'gt_bboxes': Field(
        resize=lambda boxes, size, scale: _cut(boxes * np.array([*scale, *scale]), size),
        flip=_flip_boxes,
        crop=lambda boxes, size, corner: _cut(boxes - np.array([*corner, *corner], np.float64), size),
        affine=_warp_boxes,
    ),
    'gt_masks': Field(resize=resize_masks, flip=flip_masks, crop=crop_masks, affine=warp_masks),
    'gt_labels': Field(),
    'gt_crowd': Field(),
}


def register_field(name: str, **functions: Move) -> None:
    """Declare the field ``name`` by the functions of ``Field``. Write down the coordinates of its values beside it."""
    FIELDS[name] = Field(**functions)


def field_names(results: dict[str, Any]) -> list[str]:
    """Keys of an image's fields: declared keys, and all keys that begin with ``gt_``."""
    return [name for name in results if name in FIELDS or name.startswith('gt_')]


def move_fields(results: dict[str, Any], operation: str, size: tuple[int, int], *how: Any) -> None:
    """Move every field of an image in place by ``operation``, which is an attribute of ``Field``.

    Args:
        size: (height, width) of the image after the operation.
        how: the further argument that ``Field`` describes.

    Raises:
        ConfigError: a field is not declared or has no function for the operation, and would stay behind in silence.
    """
    for name in field_names(results):
        field = FIELDS.get(name)
        if field == Field():
            continue
        if (move := getattr(field, operation, None)) is None:
            raise ConfigError(
                f'{results.get("img_path", "An image")} has the field {name}, which has no function for '
                f'{operation}: expected frdet.datasets.transforms.register_field({name!r}, {operation}=...) in a '
                'module of custom_imports, or no function at all if it has no position in the image'
            )
        results[name] = move(results[name], size, *how)


def select_objects(results: dict[str, Any], keep: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """The fields ``names`` of the objects that ``keep`` (n,) bool marks.

    Raises:
        DataError: a field does not have n entries.
    """
    for name in names:
        if len(results[name]) != len(keep):
            raise DataError(
                f'{results.get("img_path", "An image")}: {name} has {len(results[name])} entries, and there are '
                f'{len(keep)} boxes: expected one entry for each box'
            )
    return {name: np.asarray(results[name])[keep] for name in names}


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
    drawn = {}
    if backend != 'pillow' and 'gt_masks' in results:
        drawn['gt_masks'] = resize_drawn(results.pop('gt_masks'), (height, width), size, backend)
    move_fields(results, 'resize', size, scale)
    results.update(drawn)
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
            which is the same but rounds sides down, and pixels stay float32 instead of being rounded to 0..255. With
            ``cv2`` and ``torch`` masks become bitmaps before they are resized, as in these projects.
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

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """The largest (height, width) that an image of this height and width may get."""
        return BACKENDS[self.backend][0](height, width, max(self._sides), self.max_size)

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

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """``scale``, as ``ResizeShortestEdge.largest_size``."""
        return self.scale[0], self.scale[1]

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
