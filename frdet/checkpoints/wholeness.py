"""Whether the parameters of a detector go together: none is missing, and those of a layer fit each other."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from torch import Tensor

from frdet.checkpoints.fit import few
from frdet.checkpoints.rows import misshapen_rows
from frdet.errors import CheckpointError

#: A layer of one of several blocks that have the same layers.
_BLOCK = re.compile(
    r'(backbone\.layer\d+|neck\.(?:lateral|fpn|downsample|pafpn)_convs|rpn_head\.rpn_conv|bbox_head\.cls_convs|'
    r'bbox_head\.reg_convs|roi_head\.bbox_head(?:\.\d+)?\.shared_convs|roi_head\.mask_head(?:\.\d+)?\.convs)'
    r'\.(\d+)\.(.+)'
)
#: All blocks of such a part have the same layers.
_PARTS = ('backbone', 'neck', 'rpn_head', 'bbox_head', 'roi_head.bbox_head', 'roi_head.mask_head')
#: A stage of a cascade.
_STAGE = re.compile(r'(roi_head\.(?:bbox|mask)_head)\.(\d+)\.(.+)')
_COUNTER = 'num_batches_tracked'


def check_whole(state: dict[str, Tensor], name: str, theirs: Callable[[str], str], *, torchvisions: bool) -> None:
    """Check a detector under frdet's names.

    Args:
        state: the weights.
        name: the file, for errors.
        theirs: frdet's name of a parameter -> its name in the file, for errors.
        torchvisions: the rows of classes are still torchvision's.

    Raises:
        CheckpointError: parameters are missing, or shapes contradict each other.
    """
    for parameter, expected, classes in misshapen_rows(state, torchvisions=torchvisions):
        raise CheckpointError(
            f'{name}: {theirs(parameter)} has {len(state[parameter])} rows; expected '
            f'{" or ".join(map(str, expected))} for {classes} classes'
        )
    apart = [
        ' beside '.join(f'{theirs(ours)} {tuple(state[ours].shape)}' for ours in pair)
        for pair in _pairs(state)
        if state[pair[0]].shape[:1] != state[pair[1]].shape[:1]
    ]
    missing = [theirs(ours) for ours in _missing(state)]
    for verb, found in (('lacks', missing), ('has parameters that do not go together:', apart)):
        if found:
            raise CheckpointError(f'{name} cannot be converted, it is not whole: it {verb} {few(found)}')


def _missing(state: dict[str, Tensor]) -> list[str]:
    """Name the parameters that must be there because related parameters are.

    Every layer has a weight and a bias, but a convolution before a norm. All blocks of a part, such as the backbone,
    have the same layers; a shortcut has the layers of every other shortcut, and DCNv2 is in all blocks of a stage or in
    none. The numbers of the blocks have no gap. All stages of a cascade have the same parameters.
    """
    layers: set[str] = set()
    stages: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    blocks: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in state:
        if match := _STAGE.fullmatch(name):
            stages[match[1]][int(match[2])].add(match[3])
        if not (match := _BLOCK.fullmatch(name)):
            layers.add(name.rpartition('.')[0])
        elif not name.endswith(_COUNTER):
            stack, number, parameter = match.groups()
            blocks[stack][int(number)].add(parameter)
    if 'rpn_head.rpn_cls.weight' in state and 'rpn_head.rpn_conv' not in blocks:
        layers.add('rpn_head.rpn_conv')
    if any(name.startswith('bbox_head.') and '_convs.' in name for name in state):
        for tower in ('bbox_head.cls_convs', 'bbox_head.reg_convs'):
            blocks[tower][0] |= set()
    layers = {one for one in layers if not one.startswith(('backbone.', 'bbox_head.scales.'))}
    wanted = {f'{layer}.{kind}' for layer in layers for kind in ('weight', 'bias')}
    for head, found in stages.items():
        every = {one for stage in found.values() for one in stage if not one.endswith(_COUNTER)}
        wanted |= {f'{head}.{stage}.{one}' for stage in range(max(found) + 1) for one in every}
    for part in _PARTS:
        wanted |= set(_of_blocks(part, {stack: found for stack, found in blocks.items() if stack.startswith(part)}))
    return sorted(wanted - set(state))


def _of_blocks(part: str, stacks: dict[str, dict[int, set[str]]]) -> Iterator[str]:
    """Yield the parameters of all blocks of a part, if all have the layers that one of them has."""
    parameters = {one for found in stacks.values() for block in found.values() for one in block}
    if part != 'backbone':
        has_norm = any(one.startswith('bn.') for one in parameters)
        parameters |= {'conv.weight', *(('bn.weight', 'bn.bias') if has_norm else ('conv.bias',))}
    shortcut = {one for one in parameters if one.startswith('downsample.')}
    offsets = {one for one in parameters if '.conv_offset.' in one}
    counts = {stack: max(found) + 1 for stack, found in stacks.items()}
    for stack, found in stacks.items():
        deformed = any(offsets & block for block in found.values())
        for number in range(max(counts.values()) if part == 'bbox_head' else counts[stack]):  # its towers are alike
            own = parameters if found[number] & shortcut else parameters - shortcut
            yield from (f'{stack}.{number}.{one}' for one in (own if deformed else own - offsets))


def _pairs(state: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield each bias, and each parameter of a norm, with the weight that must have the same number of channels.

    The first axis of a transposed convolution's weight is its input, so it is left out.
    """
    for name in state:
        layer, kind = name.rsplit('.', 1)
        convolution = re.sub(r'bn(\d?)$', r'conv\1', re.sub(r'downsample\.1$', 'downsample.0', layer))
        weight = f'{convolution}.weight'
        if kind == _COUNTER or weight not in state or layer.endswith('.upsample'):
            continue
        if convolution != layer or kind == 'bias':
            yield name, weight
