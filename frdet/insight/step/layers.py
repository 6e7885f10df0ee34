"""Numbers of layers and stages: activations, weights, gradients, updates."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from frdet.insight.flops import unwrapped
from frdet.models.layers import ConvNorm

_VALUES = 20_000  # about so many values of a tensor are kept for its histogram
#: Layers whose outputs go through a ReLU that is no module, without the numbers of layers and of stages of a cascade.
_BEFORE_RELU = (
    'rpn_head.rpn_conv',
    'bbox_head.cls_convs',
    'bbox_head.reg_convs',
    'roi_head.bbox_head.shared_convs',
    'roi_head.bbox_head.shared_fcs',
    'roi_head.bbox_head.fc_branch',
    'roi_head.mask_head.convs',
)


@dataclass
class LayerStats:
    """Activations of a layer over all its calls in a step. Statistics are those of the finite values."""

    shape: tuple[int, ...] = ()  # of the last output (N, C, ...); empty before the first
    low: float = float('inf')
    high: float = float('-inf')
    non_finite: int = 0  # number of values that are NaN or infinite
    values: Tensor = field(default_factory=lambda: torch.zeros(0))  # some of the values
    channel_high: Tensor = field(default_factory=lambda: torch.tensor(-torch.inf))  # (C,) NaN if a value is
    _count: int = 0
    _sum: float = 0.0
    _squares: float = 0.0
    _below: int = 0  # number of values that are 0 or below

    @torch.no_grad()
    def update(self, output: Any) -> None:
        """Add the output (N, C, ...) of one call; an output of another form is ignored."""
        if not isinstance(output, Tensor) or output.dim() < 2:
            return
        x = output.float()
        finite = x[x.isfinite()]
        self.shape = tuple(x.shape)
        self.non_finite += x.numel() - finite.numel()
        self._count += finite.numel()
        self._sum += float(finite.sum())
        self._squares += float(finite.double().square().sum())
        self._below += int((finite <= 0).sum())
        if finite.numel():
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
        self.channel_high = torch.maximum(self.channel_high, x.transpose(0, 1).flatten(1).amax(dim=1).cpu())
        self.values = torch.cat([self.values, _some(finite)])

    @property
    def mean(self) -> float:
        return self._sum / max(self._count, 1)

    @property
    def std(self) -> float:
        return max(self._squares / max(self._count, 1) - self.mean**2, 0.0) ** 0.5

    @property
    def zeros(self) -> float:
        """Share of the values that are 0 or below."""
        return self._below / max(self._count, 1)

    def dead(self, name: str) -> int | None:
        """Number of channels without a value above 0; None if the layer called ``name`` has no ReLU."""
        has_relu = self.low >= 0 or re.sub(r'\.\d+', '', name).startswith(_BEFORE_RELU)
        return int((self.channel_high <= 0).sum()) if has_relu else None


@dataclass(frozen=True)
class StageStats:
    """Numbers of all parameters of a stage together; norms are Euclidean."""

    trained: int  # number of trained values
    weight: float  # norm of the trained values before the step
    gradient: float  # norm before clipping
    update: float  # norm of the change that the optimiser made
    non_finite: int  # number of values of gradients that are NaN or infinite
    values: Tensor  # some of the weights, without norms and biases

    @property
    def ratio(self) -> float | None:
        """Ratio of update to weight; None if nothing is trained."""
        return self.update / self.weight if self.trained and self.weight else None


def layers_to_watch(model: nn.Module) -> list[str]:
    """Names of the backbone's blocks, and of the convolutions and linear layers of the other parts."""
    names = []
    root, _ = unwrapped('backbone', getattr(model, 'backbone', nn.Identity()))
    for name, module in model.named_modules():
        is_leaf = next(module.children(), None) is None
        if name.startswith('backbone.'):
            depth = name.count('.') - root.count('.')
            watched = depth == 2 or (depth in (0, 1) and is_leaf)
        else:
            # A convolution and its norm are one layer: its output is that of the norm, and a ReLU follows the norm.
            part = _has_norm(model.get_submodule(name.rpartition('.')[0]))
            watched = _has_norm(module) or (isinstance(module, (nn.Conv2d, nn.Linear)) and is_leaf and not part)
        # A norm only scales the output of the layer before it.
        if watched and not isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            names.append(name)
    return names


def _has_norm(module: nn.Module) -> bool:
    return isinstance(module, ConvNorm) and module.bn is not None


def stages_after(model: nn.Module, before: dict[str, Tensor], gradients: dict[str, Tensor]) -> dict[str, StageStats]:
    """Statistics of every stage, in the model's order, from the parameters ``before`` the step and their gradients."""
    groups: dict[str, list[tuple[str, nn.Parameter]]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        groups[_stage_of(name)].append((name, parameter))
    return {
        stage: StageStats(
            trained=sum(p.numel() for _, p in members if p.requires_grad),
            weight=_norm([before[n] for n, p in members if p.requires_grad]),
            gradient=_norm([gradients[n] for n, _ in members if n in gradients]),
            update=_norm([p.detach() - before[n] for n, p in members]),
            non_finite=sum(int((~gradients[n].isfinite()).sum()) for n, _ in members if n in gradients),
            values=torch.cat([torch.zeros(0), *(_some(before[n]) for n, _ in members if before[n].dim() > 1)]),
        )
        for stage, members in groups.items()
    }


def _stage_of(parameter: str) -> str:
    """The stage of a parameter, such as ``backbone.layer1`` or, in a list, ``bbox_heads.0.fc_cls``."""
    parts = parameter.removeprefix('roi_head.').split('.')[:-1] or [parameter]
    return '.'.join(parts[: 3 if parts[1:2] and parts[1].isdigit() else 2])


def _norm(tensors: list[Tensor]) -> float:
    return sum(float(t.double().square().sum()) for t in tensors) ** 0.5


def _some(tensor: Tensor) -> Tensor:
    return tensor.flatten()[:: max(1, tensor.numel() // _VALUES)].float().cpu()
