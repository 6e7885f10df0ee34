"""Converting ResNet weights of other projects to frdet's names, which are torchvision's: ``layer1.0.conv1.weight``."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frdet.checkpoints.names import RESNET, Rule, to_ours
from frdet.errors import CheckpointError

NORM_EPS = 1e-5
_PARTS = {'2a': '1', '2b': '2', '2c': '3'}
_CAFFE2 = re.compile(r'(?:(conv1)|(res_conv1_bn)|res([2-5])_(\d+)_branch(1|2[abc])(_bn)?)_([wsb])')


def _caffe2_name(name: str) -> str | None:
    match = _CAFFE2.fullmatch(name)
    if match is None:
        return None
    stem, stem_norm, stage, block, branch, is_norm, kind = match.groups()
    kind = {'w': 'weight', 's': 'weight', 'b': 'bias'}[kind]
    if stem:  # Caffe's model has a bias here; the statistics of its norm include it, and detectron2 drops it too
        return 'conv1.weight' if kind == 'weight' else None
    if stem_norm:
        return f'bn1.{kind}'
    if branch == '1':
        return f'layer{int(stage) - 1}.{block}.downsample.{int(bool(is_norm))}.{kind}'
    return f'layer{int(stage) - 1}.{block}.{"bn" if is_norm else "conv"}{_PARTS[branch]}.{kind}'


_OURS = [Rule(rule.ours, rule.ours) for rule in RESNET]
_IN_A_DETECTOR = [Rule(rule.ours, f'backbone.{rule.ours}') for rule in RESNET]
#: Layout -> a function that gives frdet's name of a parameter, or None if a backbone does not have it.
LAYOUTS: dict[str, Callable[[str], str | None]] = {
    'Caffe2 (R-50.pkl of detectron2)': _caffe2_name,
    'detectron2': lambda name: to_ours(re.sub(r'^backbone\.(bottom_up\.)?', '', name), RESNET),
    'MMDetection or frdet detector': lambda name: to_ours(name, _IN_A_DETECTOR),
    'torchvision': lambda name: to_ours(name, _OURS),
}
#: Files of these layouts may have norms of a scale and a bias only. In other layouts such a norm is a GroupNorm.
_WITHOUT_STATISTICS = tuple(LAYOUTS)[:2]
#: Keys of classifiers and of an optimiser's state.
_NOT_OF_A_BACKBONE = re.compile(r'(fc|fc1000|pred|head\.fc|stem\.fc|linear)[._].*|.*_momentum')


def convert_backbone(state: dict[str, Any], source: str) -> tuple[dict[str, Tensor], str]:
    """Return a ResNet's weights under frdet's names, in float32, and the name of the layout of the file.

    The norms of a file of Caffe2 or detectron2 may be scales and biases only. They get mean 0 and variance 1 - eps, so
    that a norm multiplies by exactly its scale: sqrt(1 - 1e-5 + 1e-5) is 1 in float32. A file that has some statistics
    must have all of them. A classifier, optimiser state and a detector's heads are left out.

    Raises:
        CheckpointError: the names belong to no known layout.
    """
    names = [name for name in state if not _NOT_OF_A_BACKBONE.fullmatch(name)]
    ways = {layout: {name: new for name in names if (new := rename(name))} for layout, rename in LAYOUTS.items()}
    # Another kind of backbone may share a few names, such as conv1.weight.
    layout = next((one for one, renamed in ways.items() if any(n.startswith('layer') for n in renamed.values())), None)
    if layout is None:
        raise CheckpointError(
            f'{source}: no ResNet in a known layout. It has {", ".join(names[:4]) or "no weights"}, ...; '
            'expected names such as res2_0_branch2a_w, res2.0.conv1.weight or layer1.0.conv1.weight'
        )
    converted = {new: to_tensor(state[name], name, source) for name, new in ways[layout].items()}
    return _with_statistics(converted) if layout in _WITHOUT_STATISTICS else converted, layout


def to_tensor(value: Any, name: str, source: str) -> Tensor:
    """Return an array or tensor as a tensor, in float32 unless it holds integers; else raise CheckpointError."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in 'fiu':
            raise CheckpointError(f'{source}: {name} is an array of {value.dtype}, expected numbers')
        value = torch.from_numpy(np.array(value))
    if not isinstance(value, Tensor):
        raise CheckpointError(f'{source}: {name} is a {type(value).__name__}, expected an array')
    return value.float() if value.is_floating_point() else value


def _with_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add mean 0 and variance 1 - eps to every norm, if no norm has statistics."""
    if any(name.endswith(('running_mean', 'running_var')) for name in state):
        return state
    for name in [n for n in state if re.search(r'(bn\d|downsample\.1)\.weight$', n)]:
        norm = name.removesuffix('weight')
        state[f'{norm}running_mean'] = torch.zeros_like(state[name])
        state[f'{norm}running_var'] = torch.full_like(state[name], 1 - NORM_EPS)
    return state
