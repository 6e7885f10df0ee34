"""What a detector costs: floating point operations and parameters of each stage."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from frdet.apis.classes import classes_of_split, resolve_num_classes
from frdet.config import check_config
from frdet.errors import ConfigError
from frdet.registry import DETECTORS, in_config_scope

PARTS = ('backbone', 'neck', 'rpn_head', 'roi_head')


class Stage(NamedTuple):
    """A part of a detector.

    Attributes:
        name: that of its module; ``backbone stem`` is what lies before the stages, ``other`` what is in no part.
        flops: of one image's inference; a multiply-add is two.
        trained, frozen: numbers of its parameters. A FrozenBN has none, but buffers.
    """

    name: str
    flops: int
    trained: int
    frozen: int

    @property
    def params(self) -> int:
        return self.trained + self.frozen

    def without(self, parts: Sequence['Stage'], name: str) -> 'Stage':
        """What is left beside its parts."""
        left = (own - sum(column) for own, *column in zip(self[1:], *(part[1:] for part in parts), strict=True))
        return Stage(name, *left)


@in_config_scope
def count_flops(cfg: Config, size: tuple[int, int], *, num_rois: int | None = None) -> list[Stage]:
    """The cost of finding objects in one image, by stages, in the order of the computation; all in all last.

    Convolutions and matrix products are counted, by PyTorch's ``FlopCounterMode``. Norms, activations, RoIAlign, NMS
    and the decoding of boxes have no such product, and are left out. Nothing is computed: the tensors are on torch's
    meta device, which has their shapes alone.

    Args:
        cfg: a whole config; ``num_classes`` that it leaves open is looked up in its data.
        size: (height, width) of the image after the pipeline; it is padded as in a batch of one.
        num_rois: of the second stage; as many as ``rpn_head`` proposes in testing where None.

    Raises:
        ConfigError: the config is wrong, its detector is not made of ``PARTS``, or ``size`` or ``num_rois`` is not
            positive.
    """
    if min(*size, 1 if num_rois is None else num_rois) < 1:
        raise ConfigError(f'{size[0]} x {size[1]} pixels, {num_rois} RoIs: expected at least 1 of each')
    check_config(cfg)
    resolve_num_classes(cfg, lambda: classes_of_split(cfg, 'test'))
    with torch.device('meta'):
        model: Any = DETECTORS.build(cfg.model).eval()
    if missing := [name for name in PARTS if not hasattr(model, name)]:
        raise ConfigError(
            f'model.type={cfg.model.type!r} has no {missing[0]}: detectors built as FasterRCNN are counted'
        )
    divisor = getattr(model.data_preprocessor, 'pad_size_divisor', 1)
    height, width = (-(-side // divisor) * divisor for side in size)
    num_rois = num_rois or getattr(model.rpn_head, 'post_nms', {}).get(False)
    if num_rois is None:
        raise ConfigError(f'{type(model.rpn_head).__name__} does not say how many proposals it makes: give --rois')
    model.compile_features = False
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        features, _ = model(torch.empty(1, 3, height, width, device='meta'), mode='tensor')
        model.roi_head(features, torch.empty(num_rois, 5, device='meta'))
    root = type(model).__name__
    flops = {name.removeprefix(f'{root}.'): sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    return _stages(model, flops)


def _stages(model: nn.Module, flops: Mapping[str, int]) -> list[Stage]:
    modules = dict(model.named_modules())
    children = modules['backbone'].named_children()
    layers = [f'backbone.{name}' for name, child in children if any(True for _ in child.children())]
    names = [*layers, 'neck', 'rpn_head', 'roi_head.roi_extractor', 'roi_head.bbox_head']
    stages = [_stage(name, modules[name], flops.get(name, 0)) for name in names if name in modules]
    backbone = _stage('backbone', modules['backbone'], flops.get('backbone', 0))
    stages.insert(0, backbone.without(stages[: len(layers)], 'backbone stem'))
    total = _stage('total', model, flops['Global'])
    other = total.without(stages, 'other')
    return [*stages, *([other] if any(other[1:]) else []), total]


def _stage(name: str, module: nn.Module, flops: int) -> Stage:
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    trained = sum(size for size, is_trained in sizes if is_trained)
    return Stage(name, flops, trained, sum(size for size, _ in sizes) - trained)
