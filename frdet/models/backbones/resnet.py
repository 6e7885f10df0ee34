"""ResNet (He et al. 2015) as a backbone of detectors."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from frdet.errors import ConfigError
from frdet.models.layers import Conv2d, build_norm, conv_norm
from frdet.registry import BACKBONES, CONVS, NORMS


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, kind: dict | None = None
) -> nn.Conv2d:
    size = dict(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
    options: dict[str, Any] = dict(**size, stride=stride, padding=kernel_size // 2, bias=False)
    conv = Conv2d(**options) if kind is None else CONVS.build({**options, **kind})
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    return conv


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the first has the stride, in either style."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, style: str, norm: dict, dcn: dict | None = None):
        super().__init__()
        self.conv1 = _conv(in_channels, channels, 3, stride)
        self.bn1 = build_norm(norm, channels)
        self.conv2 = _conv(channels, channels, 3)
        self.bn2 = build_norm(norm, channels)
        self.downsample = _shortcut(in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(conv_norm(x, self.conv1, self.bn1))
        out = conv_norm(out, self.conv2, self.bn2)
        out += x if self.downsample is None else conv_norm(x, *self.downsample)
        return F.relu_(out)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1. The stride is in the first 1x1 in caffe style (the original), in the 3x3 in pytorch style."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, style: str, norm: dict, dcn: dict | None = None):
        super().__init__()
        stride1, stride2 = (stride, 1) if style == 'caffe' else (1, stride)
        self.conv1 = _conv(in_channels, channels, 1, stride1)
        self.bn1 = build_norm(norm, channels)
        self.conv2 = _conv(channels, channels, 3, stride2, dcn)
        self.bn2 = build_norm(norm, channels)
        self.conv3 = _conv(channels, channels * 4, 1)
        self.bn3 = build_norm(norm, channels * 4)
        self.downsample = _shortcut(in_channels, channels * 4, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu_(conv_norm(x, self.conv1, self.bn1))
        out = F.relu_(conv_norm(out, self.conv2, self.bn2))
        out = conv_norm(out, self.conv3, self.bn3)
        out += x if self.downsample is None else conv_norm(x, *self.downsample)
        return F.relu_(out)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: dict) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(_conv(in_channels, out_channels, 1, stride), build_norm(norm, out_channels))


@BACKBONES.register_module()
class ResNet(BaseModule):
    """ResNet-18, 34, 50, 101 or 152 without its classifier.

    Modules are named as in torchvision's and MMDetection's checkpoints: ``conv1``, ``bn1``, ``layer1.0.conv1``,
    ``layer1.0.downsample.0``; a norm is called bn whatever its kind.

    Args:
        depth: 18, 34, 50, 101 or 152.
        style: where a bottleneck has its stride: 'caffe' in the first 1x1 (MSRA's weights, detectron2's default),
            'pytorch' in the 3x3 (torchvision's weights).
        norm: config of the norm layers: FrozenBN, BN, SyncBN or GN.
        frozen_stages: stages that are not trained: -1 none, 0 the stem, 1 also layer1 (detectron2's FREEZE_AT 2), ...
        norm_eval: keep BN in evaluation mode while training; its weight and bias are still trained.
        zero_init_residual: start each block as the identity, with 0 as its last norm's weight: steadier from scratch.
        out_indices: the maps to return: 0 to 3 for layer1 to layer4, of strides 4, 8, 16, 32. There are no layers after
            the last one; a file of weights may have them.
        base_channels: channels of the stem and of layer1's 3x3 convolutions; each later layer has twice as many. Fewer
            than 64 make a small backbone, for which there are no ImageNet weights.
        dcn: config of the convolution in place of the bottlenecks' 3x3, ``dict(type='DCNv2', deform_groups=1)``.
            ``Pretrained`` then loads a file of the plain ResNet, and the offsets start at 0.
        stage_with_dcn: for each of layer1 to layer4 whether it has ``dcn``.
        init_cfg: MMEngine's; ``dict(type='Pretrained', checkpoint=...)`` loads ImageNet weights.
    """

    parts = dict(norm=NORMS, dcn=CONVS)

    blocks: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    def __init__(
        self,
        *,
        depth: int,
        style: str = 'caffe',
        norm: dict,
        frozen_stages: int = 1,
        norm_eval: bool = False,
        zero_init_residual: bool = False,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        base_channels: int = 64,
        dcn: dict | None = None,
        stage_with_dcn: Sequence[bool] = (False, True, True, True),
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if depth not in self.blocks:
            raise ConfigError(f'ResNet: depth is {depth}, expected one of {", ".join(map(str, self.blocks))}')
        if style not in ('caffe', 'pytorch'):
            raise ConfigError(f"ResNet: style is {style!r}, expected 'caffe' or 'pytorch'")
        if not -1 <= frozen_stages <= 4:
            raise ConfigError(f'ResNet: frozen_stages is {frozen_stages}, expected -1 to 4')
        if not out_indices or list(out_indices) != sorted({0, 1, 2, 3}.intersection(out_indices)):
            raise ConfigError(
                f'ResNet: out_indices are {tuple(out_indices)}, expected some of 0 to 3 in ascending order'
            )
        if zero_init_residual and norm.get('type') == 'FrozenBN':
            raise ConfigError(
                'ResNet: zero_init_residual=True needs a trained norm, FrozenBN would keep blocks at zero'
            )
        if dcn is not None and self.blocks[depth][0] is BasicBlock:
            raise ConfigError(
                f"ResNet: dcn with depth {depth}, expected 50, 101 or 152: it replaces a bottleneck's 3x3"
            )
        if len(stage_with_dcn) != 4:
            raise ConfigError(
                f'ResNet: stage_with_dcn is {tuple(stage_with_dcn)}, expected a boolean for each of 4 stages'
            )
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.out_indices = tuple(out_indices)
        block, counts = self.blocks[depth]
        last = max(self.out_indices) + 1
        self.stages = tuple(f'layer{i}' for i in range(1, last + 1))
        #: Layers of a whole ResNet that are not built; ``Pretrained`` leaves them out of its file.
        self.absent_layers = tuple(f'layer{i}' for i in range(last + 1, 5))
        self.conv1 = _conv(3, base_channels, 7, 2)
        self.bn1 = build_norm(norm, base_channels)
        channels = base_channels
        for i, name in enumerate(self.stages):
            stage = []
            for j in range(counts[i]):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(
                    block(channels, base_channels * 2**i, stride, style, norm, dcn if stage_with_dcn[i] else None)
                )
                channels = base_channels * 2**i * block.expansion
            self.add_module(name, nn.Sequential(*stage))
        #: Channels of each feature map returned.
        self.out_channels = tuple(base_channels * 2**i * block.expansion for i in self.out_indices)
        #: Layers that a file of a plain ResNet lacks; ``Pretrained`` leaves them as they are.
        self.added_layers = tuple(name for name, _ in self.named_modules() if name.endswith('.conv_offset'))
        if zero_init_residual:
            for m in self.modules():
                if isinstance(m, block):
                    nn.init.zeros_(m.get_parameter('bn3.weight' if block is Bottleneck else 'bn2.weight'))
        for module in self._frozen():
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) -> maps (N, C_i, H / stride_i, W / stride_i), strides 4, 8, 16, 32."""
        x = F.relu_(conv_norm(x, self.conv1, self.bn1))
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        outputs = []
        for i, name in enumerate(self.stages):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'ResNet':
        """As ``nn.Module.train``, but BN of frozen stages, or all BN with ``norm_eval``, stays in evaluation mode."""
        super().train(mode)
        for root in [self] if self.norm_eval else self._frozen():
            for m in root.modules():
                if isinstance(m, _BatchNorm):
                    m.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        stem = [self.conv1, self.bn1] if self.frozen_stages >= 0 else []
        return stem + [getattr(self, name) for name in self.stages[: max(self.frozen_stages, 0)]]
