"""Convolution followed by a norm, with a frozen norm folded into the convolution."""

from torch import Tensor, nn
from torch.nn import functional as F

from frdet.models.layers.norm import FrozenBatchNorm2d, build_norm


def conv_norm(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """``norm(conv(x))``. A FrozenBN costs no pass over the activations: it is folded into weight and bias.

    Gradients reach ``conv.weight`` through the folding. The result equals that of the two layers up to rounding.
    """
    if not isinstance(norm, FrozenBatchNorm2d) or conv.bias is not None:
        return norm(conv(x))
    weight, bias = norm.fold_into(conv.weight)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


class ConvNorm(nn.Module):
    """A convolution ``conv`` and its norm ``bn``, of any kind. Without a norm the convolution has a bias."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, norm: dict | None = None
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=norm is None)
        self.bn = build_norm(norm, out_channels) if norm is not None else None
        # Caffe2's XavierFill: uniform with variance 1 / fan-in.
        nn.init.kaiming_uniform_(self.conv.weight, a=1)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H, W)."""
        return self.conv(x) if self.bn is None else conv_norm(x, self.conv, self.bn)
