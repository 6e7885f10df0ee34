"""Functions on boxes, and the way from the pixels of the network's input to those of the original image, and back.

Boxes are tensors of shape (..., 4) holding (x1, y1, x2, y2) in pixels, continuous (width = x2 - x1).
"""

from collections.abc import Callable

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from frdet.structures.masks import paste_masks


def box_area(boxes: Tensor) -> Tensor:
    """Area in square pixels, (..., 4) -> (...). It is negative where exactly one side is."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every box of ``a`` (..., N, 4) with every box of ``b`` (..., M, 4): (..., N, M).

    Two boxes that do not overlap, empty boxes included, have IoU 0.
    """
    lt = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    rb = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    side = (rb - lt).clamp(min=0)
    inter = side[..., 0] * side[..., 1]
    union = box_area(a)[..., :, None] + box_area(b)[..., None, :] - inter
    return torch.where(inter > 0, inter / union, torch.zeros_like(inter))


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (..., 4) cut to images of ``sizes`` (..., 2) as (height, width); the leading shapes broadcast."""
    height, width = sizes.unbind(-1)
    zero = torch.zeros_like(width)
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = (x1.clamp(zero, width), y1.clamp(zero, height), x2.clamp(zero, width), y2.clamp(zero, height))
    return torch.stack(corners, dim=-1)


def scale_boxes(boxes: Tensor, scale: tuple[float, float]) -> Tensor:
    """Boxes (..., 4) multiplied by ``scale``, (x factor, y factor)."""
    return boxes * boxes.new_tensor([scale[0], scale[1], scale[0], scale[1]])


def flip_boxes(boxes: Tensor, width: float) -> Tensor:
    """Boxes (..., 4) mirrored left to right in an image ``width`` pixels wide."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=-1)


def to_original(
    found: InstanceData,
    img_shape: tuple[int, int],
    ori_shape: tuple[int, int],
    *,
    flip: bool = False,
    paste: Callable[[Tensor, Tensor, tuple[int, int]], Tensor] = paste_masks,
) -> InstanceData:
    """Detections in pixels of the network's input -> in pixels of the original image, clipped to it.

    Empty boxes are dropped. Mirroring and resizing are undone, in any order. Cutting and padding are not: a sample does
    not say where the image lies in the input, so it must lie at the top left.

    Args:
        found: ``bboxes`` (n, 4), ``scores``, ``labels``, and ``masks`` (n, M, M) on grids over the boxes if there are
            any, which become (n, height, width) bool of the original image; it is not changed.
        img_shape, ori_shape: (height, width) of the resized and of the original image.
        flip: whether the input is mirrored left to right.
        paste: masks, boxes and size of the original image -> masks of that image.
    """
    (height, width), (ori_height, ori_width) = img_shape[:2], ori_shape[:2]
    boxes = flip_boxes(found.bboxes, width) if flip else found.bboxes
    boxes = scale_boxes(boxes, (ori_width / width, ori_height / height))
    boxes = clip_boxes(boxes, boxes.new_tensor([ori_height, ori_width]))
    masks = {'masks': found.masks.flip(2) if flip else found.masks} if 'masks' in found else {}
    original = found.new(**{**found, **masks, 'bboxes': boxes})
    original = original[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    if masks:
        original.masks = paste(original.masks, original.bboxes, (ori_height, ori_width))
    return original


def to_network(
    found: InstanceData, img_shape: tuple[int, int], ori_shape: tuple[int, int], *, flip: bool = False
) -> InstanceData:
    """The inverse of ``to_original``, with the same arguments. No box is clipped or dropped.

    Masks (n, height, width) of the original image become masks of the network's input: each pixel is that of the
    original which is nearest to its centre.
    """
    (height, width), (ori_height, ori_width) = img_shape[:2], ori_shape[:2]
    boxes = scale_boxes(found.bboxes, (width / ori_width, height / ori_height))
    moved = {'bboxes': flip_boxes(boxes, width) if flip else boxes}
    if 'masks' in found:
        sides = ((height, ori_height), (width, ori_width))
        rows, columns = ((2 * torch.arange(new, device=boxes.device) + 1) * old // (2 * new) for new, old in sides)
        moved['masks'] = found.masks[:, rows][:, :, columns.flip(0) if flip else columns]
    return found.new(**{**found, **moved})
