"""Neighbourhoods of chosen cells: what a 3x3 convolution sees there."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gather_patches(features: Sequence[Tensor], cells: Tensor) -> Tensor:
    """The 3x3 neighbourhoods, zero beyond the border, of cells of several feature maps.

    Nothing waits for a count to come back from a GPU: every cell is looked up in every map, and what is not its own is
    masked. The backward pass adds in a fixed order.

    Args:
        features: L maps (B, C, H_l, W_l).
        cells: (B, S) int64, numbers of cells counted over all maps in (level, H, W) order.

    Returns:
        (B, S, 9 * C) in (row, column, channel) order, as the weights of a convolution in channels_last memory.
    """
    near = torch.arange(-1, 2, device=cells.device)
    image = torch.arange(len(cells), device=cells.device)[:, None]
    patches: Tensor | None = None
    start = 0
    for feature in features:
        _, channels, height, width = feature.shape
        # The remainder, so that cells of other levels fall on different rows: adding to one row alone would be slow.
        y, x = (cells - start) % (height * width) // width, (cells - start) % width
        y, x = (y[..., None] + near)[..., :, None], (x[..., None] + near)[..., None, :]
        own = (cells >= start) & (cells < start + height * width)
        legal = (y >= 0) & (y < height) & (x >= 0) & (x < width) & own[..., None, None]
        row = (image[..., None, None] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
        rows = feature.permute(0, 2, 3, 1).reshape(-1, channels)  # a view in channels_last memory
        found = rows[row] * legal[..., None]
        patches = found if patches is None else patches + found
        start += height * width
    assert patches is not None, 'no feature maps'
    return patches.flatten(2)
