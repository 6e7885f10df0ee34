"""Whether a detector's weights are complete and agree with one another, before any model is there to compare with."""

import re
from collections import defaultdict
from collections.abc import Iterator

from torch import Tensor

_BLOCK = re.compile(r'(backbone\.layer\d+\.)(\d+)\.((?:downsample\.)?.+)')
_COUNTER = 'num_batches_tracked'


def lacking(state: dict[str, Tensor]) -> list[str]:
    """Names under frdet's that must be there because of others that are.

    Above the backbone every layer has weight and bias. All blocks of a ResNet are made of the same layers, shortcuts
    apart, which are alike among themselves; their numbers have no gap.
    """
    pairs = (name.rsplit('.', 1)[0] for name in state if not name.startswith('backbone.'))
    wanted = {f'{layer}.{kind}' for layer in pairs for kind in ('weight', 'bias')}
    blocks: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in state:
        if (match := _BLOCK.fullmatch(name)) and not name.endswith(_COUNTER):
            stage, number, part = match.groups()
            blocks[stage][int(number)].add(part)
    parts = {part for stage in blocks.values() for found in stage.values() for part in found}
    shortcut = {part for part in parts if part.startswith('downsample.')}
    for stage, found in blocks.items():
        for number in range(min(found), max(found) + 1):
            own = parts if found[number] & shortcut else parts - shortcut
            wanted |= {f'{stage}{number}.{part}' for part in own}
    return sorted(wanted - set(state))


def unequal(state: dict[str, Tensor]) -> list[tuple[str, str]]:
    """Biases, and parameters of norms, that differ in channels from the weight they go with; and that weight."""
    return [
        (name, weight)
        for name, weight in _pairs(state)
        if weight in state and state[name].shape[:1] != state[weight].shape[:1]
    ]


def _pairs(state: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    for name in state:
        layer, kind = name.rsplit('.', 1)
        convolution = re.sub(r'bn(\d)$', r'conv\1', re.sub(r'downsample\.1$', 'downsample.0', layer))
        if kind != _COUNTER and (convolution != layer or kind == 'bias'):
            yield name, f'{convolution}.weight'
