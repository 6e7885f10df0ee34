"""Building blocks shared by the components."""

from frdet.models.layers.conv import Conv2d
from frdet.models.layers.deform_conv import ModulatedDeformConv2d
from frdet.models.layers.norm import (
    ConvNorm,
    FrozenBatchNorm2d,
    build_norm,
    conv_norm,
    has_untouched_frozen_norm,
)

__all__ = [
    'Conv2d',
    'ConvNorm',
    'FrozenBatchNorm2d',
    'ModulatedDeformConv2d',
    'build_norm',
    'conv_norm',
    'has_untouched_frozen_norm',
]
