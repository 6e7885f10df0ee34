"""Parameter names of frdet and of other projects, and the weights of a ResNet.

Pairs of templates relate the names; they read in both directions. frdet's names of a ResNet are torchvision's:
``layer1.0.conv1.weight``.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from frdet.errors import CheckpointError

#: The last parts of a parameter's name.
KINDS = 'weight|bias|running_mean|running_var|num_batches_tracked'
_NUMBER = re.compile(r'\{(\d)\}')


class Rule(NamedTuple):
    """A layer's name in both projects; ``{0}`` stands for a number, ``{2}`` for the same number plus 2."""

    ours: str
    theirs: str


#: The layers of a ResNet. frdet uses torchvision's names, the others are detectron2's.
RESNET = (
    Rule('conv1', 'stem.conv1'),
    Rule('bn1', 'stem.conv1.norm'),
    Rule('layer{0}.{0}.conv{0}', 'res{1}.{0}.conv{0}'),
    Rule('layer{0}.{0}.conv{0}.conv_offset', 'res{1}.{0}.conv{0}_offset'),  # of DCNv2
    Rule('layer{0}.{0}.bn{0}', 'res{1}.{0}.conv{0}.norm'),
    Rule('layer{0}.{0}.downsample.0', 'res{1}.{0}.shortcut'),
    Rule('layer{0}.{0}.downsample.1', 'res{1}.{0}.shortcut.norm'),
)


def to_ours(name: str, rules: Iterable[Rule]) -> str | None:
    """Return frdet's name of the parameter ``name``; None if no rule covers it."""
    return next((new for rule in rules if (new := _rename(name, rule.theirs, rule.ours))), None)


def to_theirs(name: str, rules: Iterable[Rule]) -> str | None:
    """Return the other project's name of frdet's parameter ``name``, by the first rule that covers it, or None."""
    return next((new for rule in rules if (new := _rename(name, rule.ours, rule.theirs))), None)


def _rename(name: str, source: str, target: str) -> str | None:
    match = _pattern(source).fullmatch(name)
    if match is None:
        return None
    *found, kind = match.groups()
    # ``counts`` are the numbers without what the source adds to them; the target's own addition is in its braces.
    counts = iter([int(n) - int(add) for n, add in zip(found, re.findall(_NUMBER, source), strict=True)])
    new = re.sub(_NUMBER, lambda add: str(next(counts) + int(add[1])), target)
    return None if '-' in new else new + kind


@functools.cache
def _pattern(template: str) -> re.Pattern:
    literal = [re.escape(part) for part in re.split(r'\{\d\}', template)]
    kinds = 'scale' if '.scales.' in template else KINDS  # FCOS: a number for each level
    return re.compile(r'(\d+)'.join(literal) + rf'(\.(?:{kinds}))')


NORM_EPS = 1e-5
#: Caffe2's names, with ``.weight`` for the endings ``_w`` and ``_s``, and ``.bias`` for ``_b``.
_CAFFE2 = (
    Rule('conv1', 'conv1'),
    Rule('bn1', 'res_conv1_bn'),
    Rule('layer{0}.{0}.conv1', 'res{1}_{0}_branch2a'),
    Rule('layer{0}.{0}.bn1', 'res{1}_{0}_branch2a_bn'),
    Rule('layer{0}.{0}.conv2', 'res{1}_{0}_branch2b'),
    Rule('layer{0}.{0}.bn2', 'res{1}_{0}_branch2b_bn'),
    Rule('layer{0}.{0}.conv3', 'res{1}_{0}_branch2c'),
    Rule('layer{0}.{0}.bn3', 'res{1}_{0}_branch2c_bn'),
    Rule('layer{0}.{0}.downsample.0', 'res{1}_{0}_branch1'),
    Rule('layer{0}.{0}.downsample.1', 'res{1}_{0}_branch1_bn'),
)


def _caffe2_name(name: str) -> str | None:
    if name == 'conv1_b':  # the statistics of its norm include this bias, and detectron2 drops it too
        return None
    return to_ours(re.sub('_b$', '.bias', re.sub('_[ws]$', '.weight', name)), _CAFFE2)


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
