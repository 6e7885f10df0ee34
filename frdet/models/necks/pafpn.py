"""Path Aggregation Feature Pyramid Network (Liu et al. 2018)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from frdet.errors import ConfigError
from frdet.models.layers import ConvNorm
from frdet.models.necks.fpn import FPN
from frdet.registry import NECKS


@NECKS.register_module()
class PAFPN(FPN):
    """FPN, then a path from fine to coarse that brings details to the coarse maps (Path Aggregation, section 3.1).

    A 3x3 convolution of stride 2 of each map is added to the next coarser one; a 3x3 convolution ends every map but the
    finest. As in MMDetection, the sum goes on to the next map without that convolution, and no ReLU follows. In the
    paper the result of the convolution goes on, and a ReLU follows each convolution.
    MMDetection reports 37.5 AP instead of 37.4 for Faster R-CNN R50 1x.

    Args:
        norm, out_channels: see ``FPN``.
        kwargs: the other arguments of ``FPN``. p6 and p7 follow from the last map of the second path.

    Raises:
        ConfigError: ``in_features`` leaves out a map between two others; see also ``FPN``.
    """

    def __init__(self, *, norm: dict | None = None, out_channels: int = 256, **kwargs: Any):
        super().__init__(norm=norm, out_channels=out_channels, **kwargs)
        steps = list(pairwise(self.in_features))
        if any(after != before + 1 for before, after in steps):
            raise ConfigError(
                f'PAFPN: in_features are {self.in_features}, expected neighbours: each map is half as large as the one '
                'before'
            )
        self.downsample_convs = nn.ModuleList(
            ConvNorm(out_channels, out_channels, 3, stride=2, norm=norm) for _ in steps
        )
        self.pafpn_convs = nn.ModuleList(ConvNorm(out_channels, out_channels, 3, norm=norm) for _ in steps)

    def _pyramid(self, features: Sequence[Tensor]) -> list[Tensor]:
        finest, *coarser = super()._pyramid(features)
        outputs = [finest]
        summed = finest
        for found, downsample, conv in zip(coarser, self.downsample_convs, self.pafpn_convs, strict=True):
            summed = found + downsample(summed)
            outputs.append(conv(summed))
        return outputs
