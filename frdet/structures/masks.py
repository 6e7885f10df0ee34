"""Masks of objects: on grids over their boxes, as a head predicts them, and as pixels of an image."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

#: Numbers that are computed at once on a GPU, 4 bytes each.
CHUNK = 2**26
Area = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    size: tuple[int, int],
    *,
    threshold: float = 0.5,
    rule: Literal['detectron2', 'torchvision'] = 'detectron2',
) -> Tensor:
    """Masks of an image, interpolated at the centre of each pixel. Beside its box a mask is 0.

    The result has a byte for each object and pixel: 100 objects in 4000 x 6000 pixels need 2.4 GB. Beside it, a CPU
    needs 4 bytes for each pixel of one box, and a GPU 256 MiB.

    Args:
        masks: (n, M, M) probabilities, on a grid over each box.
        boxes: (n, 4) xyxy in pixels of the image, with positive sides.
        size: (height, width) of the image.
        threshold: see ``rule``.
        rule: 'detectron2' and MMDetection interpolate over the box itself, and a pixel belongs to the object if its
            probability is at least ``threshold``. 'torchvision' first moves the box, with one cell more on each side,
            to whole pixels, and the probability must be above ``threshold``.

    Returns:
        (n, height, width) bool.
    """
    height, width = size
    if rule == 'torchvision':
        boxes = _on_whole_pixels(boxes, masks.shape[1])
    is_inside = torch.gt if rule == 'torchvision' else torch.ge
    pasted = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    areas = _near_boxes if masks.is_cpu else _whole_images
    for part, (x1, y1, x2, y2) in areas(boxes, height, width):
        found = _interpolated(masks[part], boxes[part], (x1, y1, x2, y2))
        is_inside(found, threshold, out=pasted[part, y1:y2, x1:x2])
    return pasted


def _near_boxes(boxes: Tensor, height: int, width: int) -> Iterator[tuple[slice, Area]]:
    """Each box, and the pixels that it may touch."""
    low = (boxes[:, :2].floor() - 1).clamp(min=0)
    high = torch.minimum(boxes[:, 2:].ceil() + 1, boxes.new_tensor([width, height]))
    for i, (x1, y1, x2, y2) in enumerate(torch.cat([low, high], dim=1).long().tolist()):
        if x1 < x2 and y1 < y2:
            yield slice(i, i + 1), (x1, y1, x2, y2)


def _whole_images(boxes: Tensor, height: int, width: int) -> Iterator[tuple[slice, Area]]:
    """Some boxes at a time, and all pixels: the host need not wait for the boxes."""
    step = max(1, CHUNK // max(height * width, 1))
    for first in range(0, len(boxes), step):
        yield slice(first, first + step), (0, 0, width, height)


def _interpolated(masks: Tensor, boxes: Tensor, area: Area) -> Tensor:
    """Probabilities (n, y2 - y1, x2 - x1) in the pixels of an area of the image."""
    x1, y1, x2, y2 = area
    count = masks.shape[1]
    rows = _weights(boxes[:, 1::2], y1, y2, count)
    columns = _weights(boxes[:, 0::2], x1, x2, count)
    return rows @ masks.float() @ columns.transpose(1, 2)


def _weights(ends: Tensor, first: int, last: int, count: int) -> Tensor:
    """(n, last - first, count) bilinear weights of the cells for the pixels ``first`` to ``last`` - 1 of an axis.

    ``count`` cells lie between the two ``ends`` (n, 2) of a box. A cell weighs 1 at its centre, and nothing from the
    centres of its neighbours on.
    """
    low, high = ends.float()[..., None].unbind(1)
    pixel = torch.arange(first, last, device=ends.device) + 0.5
    cell = (pixel - low) / (high - low) * count - 0.5
    return (1 - (cell[..., None] - torch.arange(count, device=ends.device)).abs()).clamp_(min=0)


def _on_whole_pixels(boxes: Tensor, count: int) -> Tensor:
    """Boxes (n, 4) whose grids lie as in torchvision's ``paste_masks_in_image``.

    There the box grows by a cell of zeros on each side, to count + 2 cells. Both ends are cut to integers, the last
    pixel still belongs to it, and the grown mask is resized to these pixels.
    """
    centre, half = (boxes[:, 2:] + boxes[:, :2]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5
    half = half * ((count + 2) / count)
    low, high = (centre - half).trunc(), (centre + half).trunc()
    cell = (high - low + 1).clamp(min=1) / (count + 2)
    return torch.cat([low + cell, low + (count + 1) * cell], dim=1)
