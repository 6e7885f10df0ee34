"""Anchors, the reference boxes at every cell of every feature map, and boxes as deltas from reference boxes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from frdet.errors import ConfigError
from frdet.models.task_modules.observing import Anchors, tell
from frdet.registry import ANCHOR_GENERATORS, BOX_CODERS


@ANCHOR_GENERATORS.register_module()
@dataclass(kw_only=True, eq=False)
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

    strides: Sequence[int]
    sizes: Sequence[Sequence[float]]
    ratios: Sequence[float]
    offset: float = 0.0
    round_to_pixels: bool = False
    strides_from_maps: bool = False

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.sizes):
            found = f'{len(self.strides)} strides but {len(self.sizes)} sizes'
            raise ConfigError(f'AnchorGenerator: {found}; each level needs both')
        counts = {len(level) for level in self.sizes}
        if len(counts) != 1:
            raise ConfigError(f'AnchorGenerator: levels have {sorted(counts)} sizes; a shared head needs one count')
        #: A, the number of anchors of a cell: all ratios of the first size, then of the next, as in detectron2. The
        #: channels of torchvision's and MMDetection's RetinaNet are put in this order when its weights are read.
        self.num_anchors = counts.pop() * len(self.ratios)
        self.cell_anchors = [self._around_origin(level) for level in self.sizes]

    def _around_origin(self, sizes: Sequence[float]) -> Tensor:
        widths = [((size**2 / ratio) ** 0.5, ratio) for size in sizes for ratio in self.ratios]
        corners = [[-w / 2, -ratio * w / 2, w / 2, ratio * w / 2] for w, ratio in widths]
        anchors = torch.tensor(corners, dtype=torch.float32)
        return anchors.round() if self.round_to_pixels else anchors

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
        tell(Anchors(levels))
        return levels


@BOX_CODERS.register_module()
@dataclass(kw_only=True, eq=False)
class DeltaXYWHCoder:
    """Deltas (dx, dy, dw, dh) = (shift of the centre / size, log of the size's ratio), times ``weights``.

    R-CNN's parametrisation (Faster R-CNN, equation 2), on continuous boxes (width = x2 - x1).

    Args:
        weights: factors of dx, dy, dw, dh, which give losses numbers of about unit size.
        max_ratio: decoded sides grow at most by this factor. The default, 1000 / 16, takes a RoI of 16 pixels to the
            size of a large image. That is enough for any true box, and exp() cannot overflow.
        limit_shrinking: sides also shrink at most by this factor (MMDetection).
    """

    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
    max_ratio: float = 1000.0 / 16
    limit_shrinking: bool = False

    def __post_init__(self) -> None:
        self.max_log = math.log(self.max_ratio)
        self.min_log = -self.max_log if self.limit_shrinking else None

    def encode(self, boxes: Tensor, targets: Tensor) -> Tensor:
        """Deltas (..., 4) that take ``boxes`` (..., 4) to ``targets`` (..., 4); both need sides above 0."""
        x, y, w, h = _centre_size(boxes)
        tx, ty, tw, th = _centre_size(targets)
        wx, wy, ww, wh = self.weights
        deltas = (wx * (tx - x) / w, wy * (ty - y) / h, ww * torch.log(tw / w), wh * torch.log(th / h))
        return torch.stack(deltas, dim=-1)

    def decode(self, boxes: Tensor, deltas: Tensor) -> Tensor:
        """Boxes (..., 4) moved by ``deltas`` (..., 4); the shapes may broadcast, as (n, 1, 4) with (n, K, 4)."""
        x, y, w, h = _centre_size(boxes)
        dx, dy, dw, dh = (d / weight for d, weight in zip(deltas.unbind(-1), self.weights, strict=True))
        px, py = dx * w + x, dy * h + y
        half_w = 0.5 * w * dw.clamp(self.min_log, self.max_log).exp()
        half_h = 0.5 * h * dh.clamp(self.min_log, self.max_log).exp()
        return torch.stack([px - half_w, py - half_h, px + half_w, py + half_h], dim=-1)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = x2 - x1, y2 - y1
    return x1 + 0.5 * w, y1 + 0.5 * h, w, h
