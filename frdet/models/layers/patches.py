"""The neighbourhoods of chosen cells, as a 3x3 convolution sees them."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gather_patches(features: Sequence[Tensor], cells: Tensor) -> Tensor:
    """The 3x3 neighbourhoods, zero beyond the border, of cells of several feature maps.

    The host does not wait for a GPU: every cell is looked up in every map, and the values of other levels than its own
    are masked. The backward pass adds in a fixed order.

    Args:
        features: L maps (B, C, H_l, W_l).
        cells: (B, S) int64, numbers of cells, counted over all maps in (level, H, W) order.

    Returns:
        (B, S, 9 * C) in (row, column, channel) order, as the weights of a convolution in channels_last memory.
    """
    near = torch.arange(-1, 2, device=cells.device)
    image = torch.arange(len(cells), device=cells.device)[:, None]
    patches: Tensor | None = None
    start = 0
    for feature in features:
        _, channels, height, width = feature.shape
        # The remainder spreads the cells of other levels over the rows: adding all to one row would be slow.
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
