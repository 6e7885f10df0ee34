"""Boxes as deltas from reference boxes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from frdet.registry import BOX_CODERS


@BOX_CODERS.register_module()
class DeltaXYWHCoder:
    """Deltas (dx, dy, dw, dh) = (shift of the centre / size, log of the size's ratio), times ``weights``.

    R-CNN's parametrisation (Faster R-CNN, equation 2), on continuous boxes (width = x2 - x1).

    Args:
        weights: factors of dx, dy, dw, dh, which give losses numbers of about unit size.
        max_ratio: decoded sides grow at most by this factor. The default, 1000 / 16, takes a RoI of 16 pixels to the
            size of a large image. That is enough for any true box, and exp() cannot overflow.
        limit_shrinking: sides also shrink at most by this factor (MMDetection).
    """

    def __init__(
        self,
        *,
        weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
        max_ratio: float = 1000.0 / 16,
        limit_shrinking: bool = False,
    ):
        self.weights = tuple(weights)
        self.max_log = math.log(max_ratio)
        self.min_log = -self.max_log if limit_shrinking else None

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
