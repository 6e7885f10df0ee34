"""Normalisation layers by name (FrozenBN, BN, SyncBN, GN), and a convolution with its norm."""

from typing import Any

import torch
from torch import Tensor, nn

from frdet.models.layers.conv import Conv2d
from frdet.registry import NORMS


@NORMS.register_module(name='FrozenBN')
class FrozenBatchNorm2d(nn.Module):
    """BatchNorm whose statistics and affine parameters never change: y = x * scale + shift, per channel.

    scale = weight / sqrt(running_var + eps) and shift = bias - running_mean * scale. The four are buffers, which no
    optimiser sees. ``conv_norm`` folds scale and shift into the convolution.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, *, eps: float = 1e-5):
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.register_buffer('weight', torch.ones(num_features))
        self.register_buffer('bias', torch.zeros(num_features))
        self.register_buffer('running_mean', torch.zeros(num_features))
        self.register_buffer('running_var', torch.ones(num_features))

    def scale_shift(self) -> tuple[Tensor, Tensor]:
        """The two (C,) tensors of y = x * scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        scale, shift = self.scale_shift()
        return x * scale[:, None, None].to(x.dtype) + shift[:, None, None].to(x.dtype)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # A checkpoint of a trained BatchNorm has a counter that means nothing here.
        state_dict.pop(f'{prefix}num_batches_tracked', None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f'{self.num_features}, eps={self.eps}'


NORMS.register_module(name='BN', module=nn.BatchNorm2d)
NORMS.register_module(name='SyncBN', module=nn.SyncBatchNorm)


@NORMS.register_module(name='GN')
class GroupNorm(nn.GroupNorm):
    """GroupNorm whose first argument is the number of channels, as in every other norm here."""

    def __init__(self, num_channels: int, *, num_groups: int = 32, eps: float = 1e-5, affine: bool = True):
        super().__init__(num_groups, num_channels, eps, affine)


def build_norm(cfg: dict, num_channels: int) -> nn.Module:
    """The norm layer of ``cfg``, ``dict(type='BN', ...)``, for ``num_channels`` channels."""
    kind = cfg.get('type') if isinstance(cfg, dict) else None
    channels = {'num_features' if kind in ('BN', 'SyncBN', 'FrozenBN') else 'num_channels': num_channels}
    return NORMS.build({**channels, **cfg} if isinstance(cfg, dict) else cfg)


def has_untouched_frozen_norm(module: nn.Module) -> bool:
    """Whether a FrozenBN in ``module`` is still the identity, because no weights were loaded into it.

    Activations then grow from block to block, and training diverges to NaN within a few steps.
    """
    norms = (m for m in module.modules() if isinstance(m, FrozenBatchNorm2d))
    return any((m.weight.eq(1) & m.bias.eq(0) & m.running_mean.eq(0) & m.running_var.eq(1)).all() for m in norms)


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """``norm(conv(x))``. A FrozenBN costs no pass over the activations: it is folded into weight and bias.

    Gradients reach ``conv.weight`` through the folding. The result equals that of the two layers up to rounding. The
    folded weight is computed at every call, not cached: PyTorch does not notice every change of a tensor, for example a
    write through ``.data``, so a cached weight could be out of date.
    """
    if not isinstance(norm, FrozenBatchNorm2d) or conv.bias is not None:
        return norm(conv(x))
    scale, shift = norm.scale_shift()
    return conv._conv_forward(x, conv.weight * scale.view(-1, 1, 1, 1), shift)  # DCNv2 has its own


class ConvNorm(nn.Module):
    """A convolution ``conv`` and its norm ``bn``, of any kind.

    Without a norm the convolution has a bias. With a norm it has one only if ``bias`` is True.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        norm: dict | None = None,
        bias: bool = False,
    ):
        super().__init__()
        has_bias = bias or norm is None
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=has_bias)
        self.bn = build_norm(norm, out_channels) if norm is not None else None
        # Caffe2's XavierFill: uniform with variance 1 / fan-in.
        nn.init.kaiming_uniform_(self.conv.weight, a=1)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        return self.conv(x) if self.bn is None else conv_norm(x, self.conv, self.bn)
