"""Input size and anchors that fit a data set, each with its reason in one line.

N images, M objects. The side of an object is the square root of its area, in pixels of the network's input unless it
says otherwise. Small, middle and large are the 10th, 50th and 90th percentile.
"""

from typing import NamedTuple

import numpy as np

STEP = 32  # an input is padded to a multiple of it, because it is the stride of the coarsest map of the backbone
SHORT, LONG = 800, 1333  # the input of the detectors trained on COCO; larger ones need much memory
SMALL = 16  # pixels: four cells of the finest map
#: Side of the anchors of each level for COCO. The RPN of a checkpoint has learnt that a level finds this size.
COCO_ANCHORS = (32, 64, 128, 256, 512)
COCO_RATIOS = (0.5, 1.0, 2.0)
OTHER_RATIOS = ((0.25, 0.5, 1.0), (1.0, 2.0, 4.0), (0.25, 1.0, 4.0))  # for wide objects, tall ones, both
NARROW = 3  # objects that no anchor of COCO fits have sides beyond 1:3


class Fit(NamedTuple):
    """Settings for a data set; each ``..._reason`` says in a line why."""

    short_side: int
    max_size: int
    size_reason: str
    anchors: tuple[int, ...]  # side in pixels, of each level
    anchor_reason: str
    ratios: tuple[float, ...]  # height / width
    ratio_reason: str  # '' if the ratios are those of COCO


def fit(sizes: np.ndarray, boxes: np.ndarray, image_index: np.ndarray) -> Fit:
    """Choose the settings.

    Args:
        sizes: (N, 2) height and width of each image, N > 0.
        boxes: (M, 4) xyxy in pixels of the images, M > 0.
        image_index: (M,) position in ``sizes``.
    """
    widths, heights = (np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)).T
    sides = np.sqrt(widths * heights)
    short, longest, size_reason = input_size(sizes, sides, image_index)
    seen = sides * resize_factors(sizes, short, longest)[image_index]
    return Fit(short, longest, size_reason, *anchor_sides(seen, short), *anchor_ratios(heights / widths))


def input_size(sizes: np.ndarray, sides: np.ndarray, image_index: np.ndarray) -> tuple[int, int, str]:
    """Short side and greatest long side of the network's input, and the reason.

    The short side is the median short side of the images, at most 800, as a multiple of 32. If a small object would
    have less than 16 pixels, it is enlarged until the object has 16, but at most to twice the size and to a long side
    of 1333. The long side is that of all images but the 5% narrowest, at most 1333.

    Args:
        sizes: (N, 2) height and width of each image.
        sides: (M,) of the objects, in pixels of the images.
        image_index: (M,) position in ``sizes``.
    """
    median = float(np.median(sizes.min(axis=1)))
    aspect = float(np.percentile(sizes.max(axis=1) / sizes.min(axis=1), 95))
    short = max(STEP, STEP * int(min(median, SHORT) / STEP + 0.5))
    reason = f'The median short side is {median:.0f} pixels'
    if median > SHORT:
        reason += f', and {SHORT} fits the memory'
    small = float(np.percentile(sides * resize_factors(sizes, short, _longest(short, aspect))[image_index], 10))
    enlarged = min(_upwards(short * SMALL / small), 2 * short, int(LONG / aspect) // STEP * STEP)
    if small < SMALL and enlarged > short:
        reason += f'; enlarged, as 10% of objects would be under {small:.0f} pixels'
        short = enlarged
    return short, _longest(short, aspect), reason


def _longest(short: int, aspect: float) -> int:
    return max(short, min(_upwards(short * aspect), LONG))


def _upwards(pixels: float) -> int:
    """The next multiple of ``STEP``; a hair above one is that one."""
    return STEP * int(np.ceil(pixels / STEP - 1e-3))


def resize_factors(sizes: np.ndarray, short: int, longest: int) -> np.ndarray:
    """(N,) pixels of the input for one pixel of each image, as ``ResizeShortestEdge`` has them."""
    return np.minimum(short / sizes.min(axis=1), longest / sizes.max(axis=1))


def anchor_sides(sides: np.ndarray, short: int) -> tuple[tuple[int, ...], str]:
    """The side of the anchors of five levels, an octave apart, and the reason.

    The smallest is the one of 8, 16 and 32 nearest to the small objects, counted in octaves.
    """
    small, large = np.percentile(sides, [10, 90])
    first = int(2 ** np.clip(np.round(np.log2(small)), 3, 5))
    anchors = tuple(first << level for level in range(5))
    reason = f'80% of objects are {small:.0f} to {large:.0f} pixels at short side {short}: '
    if anchors == COCO_ANCHORS:
        return anchors, reason + f'the anchors of COCO, {first} to {anchors[-1]}, fit'
    return anchors, reason + f'anchors {first} to {anchors[-1]}'


def anchor_ratios(ratios: np.ndarray) -> tuple[tuple[float, ...], str]:
    """The height / width ratios of anchors for objects with ``ratios`` (M,), and the reason if they are not COCO's.

    If more than 10% of the objects are narrower than 1:3, the three ratios are those that are nearest to the objects on
    average, counted in octaves. They stay three, because another number would not fit the RPN of a checkpoint.
    """
    narrow = float(((ratios < 1 / NARROW) | (ratios > NARROW)).mean())
    if narrow <= 0.1:
        return COCO_RATIOS, ''
    octaves = np.log2(ratios)[:, None]
    found = min((COCO_RATIOS, *OTHER_RATIOS), key=lambda three: np.abs(octaves - np.log2(three)).min(axis=1).mean())
    named = ', '.join(f'{ratio:g}' for ratio in found)
    reason = (
        f'{narrow:.0%} of objects are narrower than 1:{NARROW}: height / width of {named} is nearest to all objects'
    )
    return found, reason if found != COCO_RATIOS else ''
