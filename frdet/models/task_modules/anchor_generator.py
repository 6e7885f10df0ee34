"""Anchors: the reference boxes at every cell of every feature map."""

from collections.abc import Sequence

import torch
from torch import Tensor

from frdet.errors import ConfigError
from frdet.registry import ANCHOR_GENERATORS


@ANCHOR_GENERATORS.register_module()
class AnchorGenerator:
    """Boxes of given sizes and aspect ratios centred on every cell (Faster R-CNN, section 3.1.1; FPN, section 4.1).

    An anchor of size s and ratio r = h / w has area s^2: w = s / sqrt(r), h = r * w. Cell (y, x) of a map is centred at
    ((x + offset) * stride, (y + offset) * stride).

    Args:
        strides: image pixels per cell, of each level.
        sizes: square roots of the areas in image pixels, of each level.
        ratios: height / width.
        offset: 0, detectron2's and torchvision's, or 0.5 for the cell's middle.
        round_to_pixels: round the corners around the centre to whole pixels, as torchvision does.
        strides_from_maps: torchvision's strides: input size / map size, rounded down, separately for height and width.
            They are smaller than ``strides`` where a map's size was rounded up. Example: an input of 800 pixels has 13
            cells in p6, which are 61 pixels apart instead of 64.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int],
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        offset: float = 0.0,
        round_to_pixels: bool = False,
        strides_from_maps: bool = False,
    ):
        if len(strides) != len(sizes):
            raise ConfigError(f'AnchorGenerator: {len(strides)} strides but {len(sizes)} sizes; each level needs both')
        counts = {len(level) for level in sizes}
        if len(counts) != 1:
            raise ConfigError(f'AnchorGenerator: levels have {sorted(counts)} sizes; a shared head needs one count')
        self.strides = tuple(strides)
        self.offset = offset
        self.strides_from_maps = strides_from_maps
        #: A, the number of anchors of a cell: all ratios of the first size, then of the next.
        self.num_anchors = counts.pop() * len(ratios)
        self.cell_anchors = [self._around_origin(level, ratios) for level in sizes]
        if round_to_pixels:
            self.cell_anchors = [anchors.round() for anchors in self.cell_anchors]

    @staticmethod
    def _around_origin(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
        sides = [(width, ratio * width) for size in sizes for ratio in ratios for width in [(size**2 / ratio) ** 0.5]]
        return torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides], dtype=torch.float32)

    def grid(self, shapes: Sequence[tuple[int, int]], device: torch.device | str = 'cpu') -> list[Tensor]:
        """Anchors of every level for feature maps of ``shapes`` (height, width).

        Returns:
            A float32 tensor (H * W * A, 4) of each level, xyxy in image pixels, in (H, W, A) order.
        """
        if len(shapes) != len(self.strides):
            raise ConfigError(f'AnchorGenerator: {len(self.strides)} strides for {len(shapes)} feature maps')
        # The input is padded to a multiple of the finest stride, so its size follows from the finest map.
        input_height, input_width = (side * self.strides[0] for side in shapes[0])
        levels = []
        for (height, width), stride, cell in zip(shapes, self.strides, self.cell_anchors, strict=True):
            y_stride = input_height // height if self.strides_from_maps else stride
            x_stride = input_width // width if self.strides_from_maps else stride
            y = (torch.arange(height, device=device, dtype=torch.float32) + self.offset) * y_stride
            x = (torch.arange(width, device=device, dtype=torch.float32) + self.offset) * x_stride
            y, x = torch.meshgrid(y, x, indexing='ij')
            centres = torch.stack([x, y, x, y], dim=-1)
            levels.append((centres[:, :, None] + cell.to(device, non_blocking=True)).view(-1, 4))
        return levels
