"""Masks of objects: on grids over their boxes, as a head predicts them, and as pixels of an image."""

import torch
from torch import Tensor
from torch.nn import functional as F


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], *, threshold: float = 0.5) -> Tensor:
    """Masks of an image, interpolated at the centre of each pixel as detectron2 does.

    Args:
        masks: (n, M, M) probabilities, on a grid over each box.
        boxes: (n, 4) xyxy in pixels of the image.
        size: (height, width) of the image.
        threshold: a pixel belongs to the object if its probability is at least this.

    Returns:
        (n, height, width) bool.
    """
    height, width = size
    pasted = torch.zeros(len(masks), height, width, dtype=torch.bool, device=masks.device)
    for mask, box, target in zip(masks, boxes, pasted, strict=True):  # all at once would need 4 bytes for each pixel
        x1, y1, x2, y2 = box.unbind()
        x = (torch.arange(width, device=box.device) + 0.5 - x1) / (x2 - x1) * 2 - 1
        y = (torch.arange(height, device=box.device) + 0.5 - y1) / (y2 - y1) * 2 - 1
        grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
        target |= F.grid_sample(mask[None, None].float(), grid[None], align_corners=False)[0, 0] >= threshold
    return pasted
