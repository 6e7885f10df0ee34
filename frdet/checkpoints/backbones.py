"""ResNet weights of other projects under frdet's names, which are torchvision's: ``layer1.0.conv1.weight``."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frdet.checkpoints.names import RESNET, Rule, to_ours
from frdet.errors import CheckpointError

NORM_EPS = 1e-5
_PARTS = {'2a': '1', '2b': '2', '2c': '3'}


class Layout(NamedTuple):
    """A project's way to name a ResNet's weights.

    Attributes:
        name: for the log.
        rename: a name -> frdet's name, or None for what a backbone does not have.
    """

    name: str
    rename: Callable[[str], str | None]


_CAFFE2 = re.compile(r'(?:(conv1)|(res_conv1_bn)|res([2-5])_(\d+)_branch(1|2[abc])(_bn)?)_([wsb])')


def _caffe2_name(name: str) -> str | None:
    match = _CAFFE2.fullmatch(name)
    if match is None:
        return None
    stem, stem_norm, stage, block, branch, is_norm, kind = match.groups()
    kind = {'w': 'weight', 's': 'weight', 'b': 'bias'}[kind]
    if stem:
        # The stem has a bias in Caffe's model; its norm makes up for it, and detectron2 drops it.
        return 'conv1.weight' if kind == 'weight' else None
    if stem_norm:
        return f'bn1.{kind}'
    place = f'layer{int(stage) - 1}.{block}'
    if branch == '1':
        return f'{place}.downsample.{int(bool(is_norm))}.{kind}'
    return f'{place}.{"bn" if is_norm else "conv"}{_PARTS[branch]}.{kind}'


_OURS = [Rule(rule.ours, rule.ours) for rule in RESNET]
_IN_A_DETECTOR = [Rule(rule.ours, f'backbone.{rule.ours}') for rule in RESNET]
LAYOUTS = (
    Layout('Caffe2 (R-50.pkl of detectron2)', _caffe2_name),
    Layout('detectron2', lambda name: to_ours(re.sub(r'^backbone\.(bottom_up\.)?', '', name), RESNET)),
    Layout('MMDetection or frdet detector', lambda name: to_ours(name, _IN_A_DETECTOR)),
    Layout('torchvision', lambda name: to_ours(name, _OURS)),
)
#: Whose norms may be merged into a scale and a bias. Elsewhere a norm without statistics is a GroupNorm, or incomplete.
_WITHOUT_STATISTICS = LAYOUTS[:2]
#: Keys a backbone has no use for: classifiers, and what an optimiser kept.
_NOT_OF_A_BACKBONE = re.compile(r'(fc|fc1000|pred|head\.fc|stem\.fc|linear)[._].*|.*_momentum')


def convert_backbone(state: dict[str, Any], source: str) -> tuple[dict[str, Tensor], str]:
    """A ResNet's weights under frdet's names, in float32, and the name of the layout they came in.

    Where the norms of a file of Caffe2 or detectron2 are only scales and biases, mean 0 and variance 1 - eps are added,
    so that a norm multiplies by exactly that scale: sqrt(1 - 1e-5 + 1e-5) is 1 in float32. A file that has statistics
    needs all of them, and gets none.

    Args:
        state: names -> arrays or tensors; the classifier, optimiser state and heads of a detector are left out.
        source: the file, for errors.

    Raises:
        CheckpointError: the names belong to no layout known.
    """
    names = [name for name in state if not _NOT_OF_A_BACKBONE.fullmatch(name)]
    for layout in LAYOUTS:
        renamed = {name: new for name in names if (new := layout.rename(name))}
        # A backbone of another kind may have a few names in common, such as conv1.weight.
        if any(new.startswith('layer') for new in renamed.values()):
            break
    else:
        raise CheckpointError(
            f'{source}: no ResNet in a known layout. It has {", ".join(names[:4]) or "no weights"}, ...; '
            'expected names such as res2_0_branch2a_w, res2.0.conv1.weight or layer1.0.conv1.weight'
        )
    converted = {new: to_tensor(state[name], name, source) for name, new in renamed.items()}
    return _with_statistics(converted) if layout in _WITHOUT_STATISTICS else converted, layout.name


def to_tensor(value: Any, name: str, source: str) -> Tensor:
    """An array or a tensor as a tensor, in float32 unless it holds integers; CheckpointError for anything else."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in 'fiu':
            raise CheckpointError(f'{source}: {name} is an array of {value.dtype}, expected numbers')
        value = torch.from_numpy(np.array(value))
    if not isinstance(value, Tensor):
        raise CheckpointError(f'{source}: {name} is a {type(value).__name__}, expected an array')
    return value.float() if value.is_floating_point() else value


def _with_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add mean 0 and variance 1 - eps to every norm, if none has either."""
    if any(name.endswith(('running_mean', 'running_var')) for name in state):
        return state
    for name in [n for n in state if re.search(r'(bn\d|downsample\.1)\.weight$', n)]:
        norm = name.removesuffix('weight')
        state[f'{norm}running_mean'] = torch.zeros_like(state[name])
        state[f'{norm}running_var'] = torch.full_like(state[name], 1 - NORM_EPS)
    return state
