"""Faster R-CNN with ResNet and FPN under the names of frdet, MMDetection, detectron2 and torchvision.

Three layouts share MMDetection's names; the other two are converted through these names. K is the number of classes.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from frdet.checkpoints.backbones import RESNET, Rule, to_ours, to_tensor, to_theirs
from frdet.checkpoints.fit import few
from frdet.errors import CheckpointError

FC_CLS, FC_REG = 'roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg'

#: The names of frdet, detectron2 and torchvision; numbers as in ``Rule``.
_LAYERS = (
    *((f'backbone.{ours}', f'backbone.bottom_up.{theirs}', f'backbone.body.{ours}') for ours, theirs in RESNET),
    ('neck.lateral_convs.{0}.conv', 'backbone.fpn_lateral{2}', 'backbone.fpn.inner_blocks.{0}.0'),
    ('neck.lateral_convs.{0}.bn', 'backbone.fpn_lateral{2}.norm', 'backbone.fpn.inner_blocks.{0}.1'),
    ('neck.fpn_convs.{0}.conv', 'backbone.fpn_output{2}', 'backbone.fpn.layer_blocks.{0}.0'),
    ('neck.fpn_convs.{0}.bn', 'backbone.fpn_output{2}.norm', 'backbone.fpn.layer_blocks.{0}.1'),
    ('rpn_head.rpn_conv', 'proposal_generator.rpn_head.conv', 'rpn.head.conv.0.0'),
    ('rpn_head.rpn_conv.{0}.conv', 'proposal_generator.rpn_head.conv.conv{0}', 'rpn.head.conv.{0}.0'),
    ('rpn_head.rpn_cls', 'proposal_generator.rpn_head.objectness_logits', 'rpn.head.cls_logits'),
    ('rpn_head.rpn_reg', 'proposal_generator.rpn_head.anchor_deltas', 'rpn.head.bbox_pred'),
    ('roi_head.bbox_head.shared_convs.{0}.conv', 'roi_heads.box_head.conv{1}', 'roi_heads.box_head.{0}.0'),
    ('roi_head.bbox_head.shared_convs.{0}.bn', 'roi_heads.box_head.conv{1}.norm', 'roi_heads.box_head.{0}.1'),
    ('roi_head.bbox_head.shared_fcs.{0}', 'roi_heads.box_head.fc{1}', 'roi_heads.box_head.fc{6}'),
    (FC_CLS, 'roi_heads.box_predictor.cls_score', 'roi_heads.box_predictor.cls_score'),
    (FC_REG, 'roi_heads.box_predictor.bbox_pred', 'roi_heads.box_predictor.bbox_pred'),
)
#: The names that torchvision wrote before 0.14. The first matching rule is used, so no new file gets these names.
_OLD_TORCHVISION = (
    Rule('neck.lateral_convs.{0}.conv', 'backbone.fpn.inner_blocks.{0}'),
    Rule('neck.fpn_convs.{0}.conv', 'backbone.fpn.layer_blocks.{0}'),
    Rule('rpn_head.rpn_conv', 'rpn.head.conv'),
)
_OURS = tuple(Rule(ours, ours) for ours, *_ in _LAYERS)
RULES = {
    'frdet': _OURS,
    'mmdet2': _OURS,
    'mmdet3': _OURS,
    'detectron2': tuple(Rule(ours, detectron2) for ours, detectron2, _ in _LAYERS),
    'torchvision': (*(Rule(ours, torchvision) for ours, _, torchvision in _LAYERS), *_OLD_TORCHVISION),
}
LAYOUTS = tuple(RULES)
#: By these, in both projects, torchvision's names of other layers are decided; see ``_rules``.
_RPN_CONV = re.compile(r'(?:rpn_head\.rpn_conv|rpn\.head\.conv)\.(\d+)\..*')
_BOX_CONV = re.compile(r'(?:roi_head\.bbox_head\.shared_convs|roi_heads\.box_head)\.(\d+)\.(?:conv|0)\..*')
_BOX_FC = re.compile(r'(?:roi_head\.bbox_head\.shared_fcs|roi_heads\.box_head)\.(\d+)\.(?:weight|bias)')
#: detectron2 computes these buffers from its config.
_NOT_WEIGHTS = re.compile(r'pixel_(mean|std)|proposal_generator\.anchor_generator\..*')
#: Every Faster R-CNN with FPN has these parameters; no other model has all of them.
_NEEDED = tuple(
    f'{layer}.weight'
    for layer in (
        'backbone.conv1',
        *(f'neck.{part}.{i}.conv' for part in ('lateral_convs', 'fpn_convs') for i in range(4)),
        *('rpn_head.rpn_cls', 'rpn_head.rpn_reg', FC_CLS, FC_REG),
    )
)
#: Known parts that are not converted: pattern -> words.
_OTHER_PARTS = {
    r'mask': 'a mask head',
    r'keypoint': 'a keypoint head',
}


def _rules(layout: str, names: Collection[str]) -> tuple[Rule, ...]:
    """The rules between frdet and a layout for a detector whose parameters are ``names``, in either.

    torchvision numbers the layers of a box head with convolutions from the first convolution on, and also counts the
    flattening and each ReLU after it. The first convolution of an RPN has the same name, whether others follow or not.
    """
    if layout != 'torchvision':
        return RULES[layout]
    rpn_convs, convs, fcs = (
        {int(match[1]) for name in names if (match := pattern.fullmatch(name))}
        for pattern in (_RPN_CONV, _BOX_CONV, _BOX_FC)
    )
    first = [rule for rule in RULES[layout] if rule.ours == 'rpn_head.rpn_conv.{0}.conv' and max(rpn_convs, default=0)]
    for i in range(len(fcs) if convs else 0):
        first.append(Rule(f'roi_head.bbox_head.shared_fcs.{i}', f'roi_heads.box_head.{max(convs) + 2 + 2 * i}'))
    return (*first, *RULES[layout])


def recognise(state_dict: Iterable[str]) -> str | None:
    """Return 'frdet' (also for MMDetection), 'detectron2' or 'torchvision' by the names alone; None for other models.

    Only the RPN and the box predictor count, so a Mask R-CNN is recognised too; ``misfits`` names its mask head.
    """
    names = set(state_dict)
    for layout in ('frdet', 'detectron2', 'torchvision'):
        needed = (to_theirs(f'{layer}.weight', RULES[layout]) for layer in ('rpn_head.rpn_cls', FC_CLS))
        if names.issuperset(filter(None, needed)):
            return layout
    return None


def misfits(state_dict: Collection[str], layout: str) -> str | None:
    """Say why the names are not those of a Faster R-CNN with FPN in this layout; None if they are."""
    rules = _rules(layout, state_dict)
    renamed = {name: to_ours(name, rules) for name in state_dict if not _NOT_WEIGHTS.fullmatch(name)}
    if left := sorted(name for name, new in renamed.items() if new is None):
        words = [text for pattern, text in _OTHER_PARTS.items() if any(re.search(pattern, name) for name in left)]
        return f'it has {" and ".join(words) or "more than a Faster R-CNN"}: {few(left)}'
    present = set(renamed.values())
    if missing := [to_theirs(name, rules) or name for name in _NEEDED if name not in present]:
        return f'it lacks {", ".join(missing[:3])}'
    return None


def convert_state_dict(
    state_dict: dict[str, Any], *, source: str = 'auto', target: str = 'frdet', name: str = 'The state dict'
) -> dict[str, Tensor]:
    """Convert a detector's weights to another project's names; returns tensors in float32.

    torchvision's background is the first class, in other projects it is the last. torchvision's box layer has four
    rows for the background that it never uses: reading drops them, and writing fills them with zeros. BatchNorm's
    counters of batches are dropped for detectron2 and torchvision.

    Args:
        state_dict: names -> arrays or tensors.
        source: one of ``LAYOUTS``, or 'auto' to recognise it.
        target: one of ``LAYOUTS``.
        name: the file, for errors.

    Raises:
        CheckpointError: the layout is unknown, or the names or shapes are not those of a Faster R-CNN in this layout.
    """
    if unknown := {source, target} - {'auto', *LAYOUTS} or {target} - set(LAYOUTS):
        raise CheckpointError(f'No layout {unknown.pop()!r}: expected {", ".join(LAYOUTS)}')
    if source == 'auto':
        source = recognise(state_dict) or ''
        if not source:
            raise CheckpointError(
                f'{name} is in no known layout: it has {", ".join(list(state_dict)[:3])}, ...; expected the names of '
                f'a Faster R-CNN of {", ".join(LAYOUTS)}'
            )
    if why := misfits(state_dict, source):
        raise CheckpointError(
            f"{name} cannot be converted from {source}'s names: {why}.\nOnly Faster R-CNN with ResNet and FPN converts"
        )
    rules = _rules(source, state_dict)
    named = ((to_ours(old, rules), old, value) for old, value in state_dict.items())
    state = {new: to_tensor(value, old, name) for new, old, value in named if new is not None}
    _check_box_head(state, source == 'torchvision', name)
    _check_whole(state, rules, name)
    if source == 'torchvision':
        _move_background(state, last=True)
    if target == 'torchvision':
        if len(state[f'{FC_REG}.weight']) != 4 * num_classes(state):
            raise CheckpointError(f'{name} has one box for all classes, which torchvision does not know')
        _move_background(state, last=False)
    if target in ('detectron2', 'torchvision'):
        state = {old: value for old, value in state.items() if not old.endswith('num_batches_tracked')}
    rules = _rules(target, state)
    return {to_theirs(old, rules) or old: value for old, value in state.items()}


def num_classes(state_dict: dict[str, Tensor]) -> int:
    """Return K, without the background, of a detector under frdet's names."""
    return len(state_dict[f'{FC_CLS}.weight']) - 1


#: A layer of one of several blocks that have the same layers.
_BLOCK = re.compile(
    r'(backbone\.layer\d+|neck\.lateral_convs|neck\.fpn_convs|rpn_head\.rpn_conv|roi_head\.bbox_head\.shared_convs)'
    r'\.(\d+)\.(.+)'
)
_COUNTER = 'num_batches_tracked'


def _check_whole(state: dict[str, Tensor], rules: Sequence[Rule], name: str) -> None:
    def theirs(ours: str) -> str:
        return to_theirs(ours, rules) or ours

    missing = [theirs(ours) for ours in _missing(state)]
    apart = [
        ' beside '.join(f'{theirs(ours)} {tuple(state[ours].shape)}' for ours in pair)
        for pair in _pairs(state)
        if state[pair[0]].shape[:1] != state[pair[1]].shape[:1]
    ]
    for verb, found in (('lacks', missing), ('has parameters that do not go together:', apart)):
        if found:
            raise CheckpointError(f'{name} cannot be converted, it is not whole: it {verb} {few(found)}')


def _missing(state: dict[str, Tensor]) -> list[str]:
    """Name the parameters that must be there because related parameters are.

    Every layer has a weight and a bias, but a convolution before a norm. All blocks of a part, such as the backbone,
    have the same layers; a shortcut has the layers of every other shortcut. The numbers of the blocks have no gap.
    """
    layers: set[str] = set()
    blocks: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in state:
        if not (match := _BLOCK.fullmatch(name)):
            layers.add(name.rpartition('.')[0])
        elif not name.endswith(_COUNTER):
            stack, number, parameter = match.groups()
            blocks[stack][int(number)].add(parameter)
    if 'rpn_head.rpn_conv' not in blocks:
        layers.add('rpn_head.rpn_conv')
    wanted = {f'{layer}.{kind}' for layer in layers if not layer.startswith('backbone.') for kind in ('weight', 'bias')}
    for part in ('backbone', 'neck', 'rpn_head', 'roi_head'):
        stacks = {stack: found for stack, found in blocks.items() if stack.startswith(part)}
        parameters = {one for found in stacks.values() for block in found.values() for one in block}
        if part != 'backbone':
            has_norm = any(one.startswith('bn.') for one in parameters)
            parameters |= {'conv.weight', *(('bn.weight', 'bn.bias') if has_norm else ('conv.bias',))}
        shortcut = {one for one in parameters if one.startswith('downsample.')}
        for stack, found in stacks.items():
            for number in range(max(found) + 1):
                own = parameters if found[number] & shortcut else parameters - shortcut
                wanted |= {f'{stack}.{number}.{one}' for one in own}
    return sorted(wanted - set(state))


def _pairs(state: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Yield each bias, and each parameter of a norm, with the weight that must have the same number of channels."""
    for name in state:
        layer, kind = name.rsplit('.', 1)
        convolution = re.sub(r'bn(\d?)$', r'conv\1', re.sub(r'downsample\.1$', 'downsample.0', layer))
        weight = f'{convolution}.weight'
        if kind != _COUNTER and (convolution != layer or kind == 'bias') and weight in state:
            yield name, weight


def _check_box_head(state: dict[str, Tensor], background_boxes: bool, name: str) -> None:
    """Check the rows: K + 1 for scores; 4 K for boxes, 4 if all classes share one box, 4 (K + 1) in torchvision."""
    classes = num_classes(state)
    expected = {4 * (classes + 1)} if background_boxes else {4 * classes, 4}
    for kind in ('weight', 'bias'):
        scores, boxes = (len(state.get(f'{layer}.{kind}', ())) for layer in (FC_CLS, FC_REG))
        if scores != classes + 1 or boxes not in expected:
            raise CheckpointError(
                f'{name}: the {kind} of the class scores has {scores} rows, that of the boxes {boxes}; expected '
                f'{classes + 1} and {" or ".join(map(str, sorted(expected)))} for {classes} classes and the background'
            )


def _move_background(state: dict[str, Tensor], *, last: bool) -> None:
    """Make the background the last class, or the first as in torchvision; the dict changes, its tensors do not."""
    for kind in ('weight', 'bias'):
        scores, boxes = state[f'{FC_CLS}.{kind}'], state[f'{FC_REG}.{kind}']
        state[f'{FC_CLS}.{kind}'] = scores.roll(-1 if last else 1, dims=0)
        state[f'{FC_REG}.{kind}'] = boxes[4:].clone() if last else torch.cat([torch.zeros_like(boxes[:4]), boxes])
