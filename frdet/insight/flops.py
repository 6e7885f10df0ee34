"""What a detector costs: floating point operations and parameters of each stage."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from frdet.apis.classes import classes_of_split, resolve_num_classes
from frdet.config import check_config
from frdet.errors import ConfigError
from frdet.models.detectors import Detector
from frdet.registry import DETECTORS, in_config_scope


class Stage(NamedTuple):
    """A part of a detector.

    Attributes:
        name: name of its module. ``backbone stem`` and ``head rest`` are the modules of a backbone or a head outside
            its stages, ``other`` the modules in no part.
        flops: FLOPs of the inference of one image; a multiply-add is two.
        trained, frozen: numbers of its parameters. A FrozenBN has buffers and no parameters.
    """

    name: str
    flops: int
    trained: int
    frozen: int

    @property
    def params(self) -> int:
        return self.trained + self.frozen


@in_config_scope
def count_flops(cfg: Config, size: tuple[int, int]) -> list[Stage]:
    """The cost of inference for one image: its stages in the order of the model's parts, the total last.

    Convolutions and matrix products are counted, by PyTorch's ``FlopCounterMode``. Norms, activations, RoIAlign, NMS
    and the decoding of boxes are not counted. No values are computed: the tensors are on torch's meta device and have
    shapes only. So a second stage is counted with the largest number of RoIs that the first stage may propose.

    Args:
        cfg: a whole config; a missing ``num_classes`` is looked up in its data.
        size: (height, width) of the image after the pipeline; it is padded as in a batch of one.

    Raises:
        ConfigError: the config is wrong, its model is no ``Detector`` or has shapes that depend on values, or ``size``
            is not positive.
    """
    if min(size) < 1:
        raise ConfigError(f'{size[0]} x {size[1]} pixels: expected at least 1 of each')
    check_config(cfg)
    resolve_num_classes(cfg, lambda: classes_of_split(cfg, 'test'))
    import torchvision  # noqa: F401  # it registers its operators

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: _deform_conv_flops})
    with torch.device('meta'), torch.no_grad():
        model: Any = DETECTORS.build(cfg.model).eval()
        if not isinstance(model, Detector):
            raise ConfigError(
                f'model.type={cfg.model.type!r} is no Detector, whose extract_features and detect are counted: derive '
                'it from frdet.models.detectors.Detector'
            )
        model.compile_features = False
        divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)
        images = torch.empty(1, 3, *(-(-side // divisor) * divisor for side in size))
        try:
            with counter:
                _Finding(model)(images)
        except RuntimeError as error:
            raise ConfigError(
                f'{type(model).__name__} cannot be counted ({str(error).strip().partition(chr(10))[0]}): its detect '
                "may use only operations that torch's meta device knows, and shapes that do not depend on values"
            ) from error
    prefix, counts = f'{_Finding.__name__}.detector.', counter.get_flop_counts()
    return _stages(model, {name.removeprefix(prefix): sum(ops.values()) for name, ops in counts.items()})


def _deform_conv_flops(images: Sequence[int], weight: Sequence[int], *args: Any, out_shape: Any, **kwargs: Any) -> int:
    """As many as of the convolution; the interpolation of its samples is not counted."""
    return 2 * prod(out_shape) * prod(weight[1:])


class _Finding(nn.Module):
    """Inference as one module, because the counter starts every name with the outermost module."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Any:
        return self.detector.detect(self.detector.extract_features(images), images.new_empty(1, 2))


def unwrapped(name: str, module: nn.Module) -> tuple[str, nn.Module]:
    """The first module with several children inside a module, and its name: wrappers of one child are skipped."""
    while len(children := list(module.named_children())) == 1:
        name, module = f'{name}.{children[0][0]}', children[0][1]
    return name, module


def _stages(model: nn.Module, flops: Mapping[str, int]) -> list[Stage]:
    stages: list[Stage] = []
    for name, part in model.named_children():
        inner = [] if name == 'neck' else [_stage(*one, flops) for one in _inner(*unwrapped(name, part))]
        rest = name if not inner else 'backbone stem' if name == 'backbone' else f'{name} rest'
        stages += [_beside(inner, rest, _stage(name, part, flops)), *inner]
    total = _stage('total', model, {'total': flops['Global']})
    stages = [stage for stage in (*stages, _beside(stages, 'other', total)) if any(stage[1:])]
    return [*stages, total]


def _inner(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children of a module that have children; a list is replaced by its members."""
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from _inner(f'{path}.{name}', child)
        elif next(child.children(), None) is not None:
            yield f'{path}.{name}', child


def _beside(parts: list[Stage], name: str, whole: Stage) -> Stage:
    """The rest of a stage without its parts."""
    left = (own - sum(column) for own, *column in zip(whole[1:], *(part[1:] for part in parts), strict=True))
    return Stage(name, *left)


def _stage(name: str, module: nn.Module, flops: Mapping[str, int]) -> Stage:
    trained, frozen = (sum(p.numel() for p in module.parameters() if p.requires_grad is on) for on in (True, False))
    return Stage(name, _flops(name, module, flops), trained, frozen)


def _flops(name: str, module: nn.Module, flops: Mapping[str, int]) -> int:
    """FLOPs of a module, or the sum of its children if it is greater: a list is never called itself."""
    children = sum(_flops(f'{name}.{inner}', child, flops) for inner, child in module.named_children())
    return max(flops.get(name, 0), children)
