"""Feature Pyramid Network (Lin et al. 2017)."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.models.layers import ConvNorm
from frdet.registry import NECKS, NORMS

LAST_LEVELS = ('maxpool', 'p6p7_on_c5', 'p6p7_on_p5', None)


@NECKS.register_module()
class FPN(BaseModule):
    """1x1 lateral convolutions, a top-down path of nearest upsampling, a 3x3 convolution on every sum (FPN, section 3).

    Args:
        in_channels: channels of the backbone's maps, finest first. None: a detector gives ``backbone.out_channels``.
        out_channels: channels of every map returned.
        in_features: indices of the backbone's maps that are used; None: all.
        norm: config of the norm after every convolution. None: no norm, and the convolutions have a bias.
        fuse_type: 'sum' of the lateral and the upsampled map, or 'avg', half their sum.
        last_level: 'maxpool' adds p6 by taking every second cell of p5 (for the RPN alone). 'p6p7_on_c5' and
            'p6p7_on_p5' add p6 and p7 by 3x3 convolutions of stride 2 (RetinaNet, section 4): p6 from the last used
            map of the backbone (as the paper and detectron2) or from p5, and p7 from p6 after ReLU. None adds no map.
        init_cfg: MMEngine's.

    Raises:
        ConfigError: an option has an unknown value, or ``in_channels`` is None.
    """

    parts = dict(norm=NORMS)

    def __init__(
        self,
        *,
        in_channels: Sequence[int] | None = None,
        out_channels: int = 256,
        in_features: Sequence[int] | None = None,
        norm: dict | None = None,
        fuse_type: str = 'sum',
        last_level: str | None = 'maxpool',
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if fuse_type not in ('sum', 'avg'):
            raise ConfigError(f"FPN: fuse_type is {fuse_type!r}, expected 'sum' or 'avg'")
        if last_level not in LAST_LEVELS:
            raise ConfigError(f'FPN: last_level is {last_level!r}, expected one of {", ".join(map(repr, LAST_LEVELS))}')
        if in_channels is None:
            raise ConfigError('FPN: in_channels is None, expected the channels of the maps that it gets, finest first')
        self.in_channels = tuple(in_channels)
        self.in_features = tuple(range(len(in_channels)) if in_features is None else in_features)
        if not self.in_features or max(self.in_features) >= len(in_channels):
            raise ConfigError(f'FPN: in_features {self.in_features} do not index the {len(in_channels)} in_channels')
        self.fuse_type = fuse_type
        self.last_level = last_level
        used = [in_channels[i] for i in self.in_features]
        self.lateral_convs = nn.ModuleList(ConvNorm(c, out_channels, 1, norm=norm) for c in used)
        self.fpn_convs = nn.ModuleList(ConvNorm(out_channels, out_channels, 3, norm=norm) for _ in used)
        if last_level in ('p6p7_on_c5', 'p6p7_on_p5'):  # named as in MMDetection
            on = used[-1] if last_level == 'p6p7_on_c5' else out_channels
            self.fpn_convs.extend(ConvNorm(c, out_channels, 3, stride=2, norm=norm) for c in (on, out_channels))
        self.out_channels = out_channels

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Backbone maps (N, C_i, H_i, W_i), finest first -> maps (N, out_channels, H_i, W_i), then p6 and p7 if any.

        Raises:
            ConfigError: the channels of the backbone's maps are not ``in_channels``.
        """
        outputs = self._pyramid(features)
        if self.last_level == 'maxpool':
            outputs.append(F.max_pool2d(outputs[-1], kernel_size=1, stride=2))
        elif self.last_level is not None:
            last = features[self.in_features[-1]] if self.last_level == 'p6p7_on_c5' else outputs[-1]
            outputs.append(self.fpn_convs[-2](last))
            outputs.append(self.fpn_convs[-1](F.relu(outputs[-1])))
        return tuple(outputs)

    def _pyramid(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The maps of the levels of the backbone's maps, finest first."""
        if tuple(f.shape[1] for f in features) != self.in_channels:
            found = ', '.join(str(f.shape[1]) for f in features)
            raise ConfigError(
                f'FPN: the backbone gives maps of {found} channels, neck.in_channels says {self.in_channels}'
            )
        top_down: Tensor | None = None
        outputs: list[Tensor] = []
        for i in reversed(range(len(self.in_features))):
            lateral = self.lateral_convs[i](features[self.in_features[i]])
            if top_down is not None:
                lateral = lateral + F.interpolate(top_down, size=lateral.shape[-2:], mode='nearest')
                if self.fuse_type == 'avg':
                    lateral = lateral / 2
            top_down = lateral
            outputs.insert(0, self.fpn_convs[i](top_down))
        return outputs
