"""Feature Pyramid Network (Lin et al. 2017)."""

from collections.abc import Sequence
from typing import ClassVar

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.models.layers import ConvNorm
from frdet.registry import NECKS, NORMS, Registry

LAST_LEVELS = ('maxpool', 'p6p7_on_c5', 'p6p7_on_p5', None)


@NECKS.register_module()
class FPN(BaseModule):
    """1x1 lateral convolutions, a top-down path of nearest upsampling, a 3x3 convolution on every sum (FPN, section 3).

    Args:
        in_channels: channels of the backbone's maps, finest first; a detector gives ``backbone.out_channels`` where it
            is None.
        out_channels: channels of every map returned.
        in_features: which of the backbone's maps are used, as indices; None: all.
        norm: norm after every convolution; None: none, and the convolutions have a bias.
        fuse_type: 'sum', or 'avg', which halves the sum of lateral and upsampled map.
        last_level: 'maxpool' adds a map of twice the last stride by taking every second cell (p6, for RPN alone);
            'p6p7_on_c5' and 'p6p7_on_p5' add two by 3x3 convolutions of stride 2, the first on the last of the
            backbone's maps that are used or on p5, the second on the first's after ReLU (RetinaNet, section 4; c5 in
            the paper and in detectron2); None adds none.
        init_cfg: MMEngine's.

    Raises:
        ConfigError: an option has no such value, or ``in_channels`` is None.
    """

    parts: ClassVar[dict[str, Registry]] = dict(norm=NORMS)

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
            raise ConfigError('FPN: in_channels is None: give the channels of the maps that it gets, finest first')
        self.in_channels = tuple(in_channels)
        self.in_features = tuple(range(len(in_channels)) if in_features is None else in_features)
        if not self.in_features or max(self.in_features) >= len(in_channels):
            raise ConfigError(f'FPN: in_features {self.in_features} do not index the {len(in_channels)} in_channels')
        self.fuse_type = fuse_type
        self.last_level = last_level
        used = [in_channels[i] for i in self.in_features]
        self.lateral_convs = nn.ModuleList(ConvNorm(c, out_channels, 1, norm=norm) for c in used)
        self.fpn_convs = nn.ModuleList(ConvNorm(out_channels, out_channels, 3, norm=norm) for _ in used)
        if last_level in ('p6p7_on_c5', 'p6p7_on_p5'):  # called as in MMDetection
            on = used[-1] if last_level == 'p6p7_on_c5' else out_channels
            self.fpn_convs.extend(ConvNorm(c, out_channels, 3, stride=2, norm=norm) for c in (on, out_channels))
        self.out_channels = out_channels

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Backbone maps (N, C_i, H_i, W_i), finest first -> maps (N, out_channels, H_i, W_i), and p6, p7 if asked for.

        Raises:
            ConfigError: the backbone's maps are not those ``in_channels`` says.
        """
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
        if self.last_level == 'maxpool':
            outputs.append(F.max_pool2d(outputs[-1], kernel_size=1, stride=2))
        elif self.last_level is not None:
            last = features[self.in_features[-1]] if self.last_level == 'p6p7_on_c5' else outputs[-1]
            outputs.append(self.fpn_convs[-2](last))
            outputs.append(self.fpn_convs[-1](F.relu(outputs[-1])))
        return tuple(outputs)
