"""Faster R-CNN with ResNet and FPN under the names of frdet, MMDetection, detectron2 and torchvision.

frdet's names are MMDetection's, so that three layouts share them; the other two convert by way of them. K classes.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from frdet.checkpoints.backbones import to_tensor
from frdet.checkpoints.names import RESNET, Rule, to_ours, to_theirs
from frdet.checkpoints.whole import lacking, unequal
from frdet.errors import CheckpointError

FC_CLS, FC_REG = 'roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg'

#: frdet's name, detectron2's, torchvision's; numbers as in ``Rule``.
_LAYERS = (
    ('neck.lateral_convs.{0}.conv', 'backbone.fpn_lateral{2}', 'backbone.fpn.inner_blocks.{0}.0'),
    ('neck.fpn_convs.{0}.conv', 'backbone.fpn_output{2}', 'backbone.fpn.layer_blocks.{0}.0'),
    ('rpn_head.rpn_conv', 'proposal_generator.rpn_head.conv', 'rpn.head.conv.0.0'),
    ('rpn_head.rpn_cls', 'proposal_generator.rpn_head.objectness_logits', 'rpn.head.cls_logits'),
    ('rpn_head.rpn_reg', 'proposal_generator.rpn_head.anchor_deltas', 'rpn.head.bbox_pred'),
    ('roi_head.bbox_head.shared_fcs.{0}', 'roi_heads.box_head.fc{1}', 'roi_heads.box_head.fc{6}'),
    (FC_CLS, 'roi_heads.box_predictor.cls_score', 'roi_heads.box_predictor.cls_score'),
    (FC_REG, 'roi_heads.box_predictor.bbox_pred', 'roi_heads.box_predictor.bbox_pred'),
)
#: What torchvision wrote before 0.14. Rules are tried in their order, so that no new file gets these names.
_OLD_TORCHVISION = (
    Rule('neck.lateral_convs.{0}.conv', 'backbone.fpn.inner_blocks.{0}'),
    Rule('neck.fpn_convs.{0}.conv', 'backbone.fpn.layer_blocks.{0}'),
    Rule('rpn_head.rpn_conv', 'rpn.head.conv'),
)
_OURS = (
    *(Rule(f'backbone.{ours}', f'backbone.{ours}') for ours, _ in RESNET),
    *(Rule(ours, ours) for ours, *_ in _LAYERS),
)
RULES = {
    'frdet': _OURS,
    'mmdet2': _OURS,
    'mmdet3': _OURS,
    'detectron2': (
        *(Rule(f'backbone.{ours}', f'backbone.bottom_up.{theirs}') for ours, theirs in RESNET),
        *(Rule(ours, detectron2) for ours, detectron2, _ in _LAYERS),
    ),
    'torchvision': (
        *(Rule(f'backbone.{ours}', f'backbone.body.{ours}') for ours, _ in RESNET),
        *(Rule(ours, torchvision) for ours, _, torchvision in _LAYERS),
        *_OLD_TORCHVISION,
    ),
}
LAYOUTS = tuple(RULES)
#: Buffers of detectron2 that follow from its config.
_NOT_WEIGHTS = re.compile(r'pixel_(mean|std)|proposal_generator\.anchor_generator\..*')
#: Every detector has them; no other model has all.
_NEEDED = tuple(
    f'{layer}.weight'
    for layer in (
        'backbone.conv1',
        *(f'neck.{part}.{i}.conv' for part in ('lateral_convs', 'fpn_convs') for i in range(4)),
        *('rpn_head.rpn_conv', 'rpn_head.rpn_cls', 'rpn_head.rpn_reg', FC_CLS, FC_REG),
    )
)
#: Parts that are known and not covered: pattern -> words.
_OTHER_PARTS = {
    r'mask': 'a mask head',
    r'keypoint': 'a keypoint head',
    r'backbone\.fpn_\w+\.norm\.|backbone\.fpn\.\w+\.\d\.1\.|neck\.\w+\.\d\.bn\.': 'norms in the FPN',
}


def recognise(state_dict: Iterable[str]) -> str | None:
    """'frdet', 'detectron2' or 'torchvision', from the names alone; None for another model's.

    The names are a detector's if its RPN and box predictor are there. MMDetection's are frdet's. More than a Faster
    R-CNN, such as one with a mask head, is recognised too: ``misfits`` says what is too much.
    """
    names = set(state_dict)
    for layout in ('frdet', 'detectron2', 'torchvision'):
        needed = (to_theirs(f'{layer}.weight', RULES[layout]) for layer in ('rpn_head.rpn_cls', FC_CLS))
        if names.issuperset(filter(None, needed)):
            return layout
    return None


def misfits(state_dict: Iterable[str], layout: str) -> str | None:
    """Why the names are not those of a Faster R-CNN with FPN in this layout, in words; None if they are."""
    renamed = {name: to_ours(name, RULES[layout]) for name in state_dict if not _NOT_WEIGHTS.fullmatch(name)}
    if left := sorted(name for name, new in renamed.items() if new is None):
        words = [text for pattern, text in _OTHER_PARTS.items() if any(re.search(pattern, name) for name in left)]
        which = ', '.join(left[:3]) + (f' and {len(left) - 3} more' if len(left) > 3 else '')
        return f'it has {" and ".join(words) or "more than a Faster R-CNN"}: {which}'
    present = set(renamed.values())
    if lacking := [to_theirs(name, RULES[layout]) or name for name in _NEEDED if name not in present]:
        return f'it lacks {", ".join(lacking[:3])}'
    return None


def convert_state_dict(
    state_dict: dict[str, Any], *, source: str = 'auto', target: str = 'frdet', name: str = 'The state dict'
) -> dict[str, Tensor]:
    """A detector's weights under another project's names.

    torchvision has the background first, the others last; its box layer has four rows for the background too, which
    it never uses: they are dropped on reading, and zeros on writing. BatchNorm's counters of batches are kept under
    frdet's names and dropped under the other ones.

    Args:
        state_dict: names -> arrays or tensors.
        source: one of ``LAYOUTS``, or 'auto' to recognise it.
        target: one of ``LAYOUTS``.
        name: the file, for errors.

    Returns:
        Tensors in float32.

    Raises:
        CheckpointError: the layout is unknown, or the names or shapes are not those of a Faster R-CNN in it.
    """
    if unknown := {source, target} - {'auto', *LAYOUTS} or {target} - set(LAYOUTS):
        raise CheckpointError(f'No layout {unknown.pop()!r}: expected {", ".join(LAYOUTS)}')
    if source == 'auto':
        found = recognise(state_dict)
        if found is None:
            raise CheckpointError(
                f'{name} is in no known layout: it has {", ".join(list(state_dict)[:3])}, ...; expected the names of '
                f'a Faster R-CNN of {", ".join(LAYOUTS)}'
            )
        source = found
    if why := misfits(state_dict, source):
        raise CheckpointError(
            f"{name} cannot be converted from {source}'s names: {why}.\nOnly Faster R-CNN with ResNet and FPN converts"
        )
    state: dict[str, Tensor] = {}
    for old, value in state_dict.items():
        if (new := to_ours(old, RULES[source])) is not None:
            state[new] = to_tensor(value, old, name)
    _check_box_head(state, source == 'torchvision', name)
    _check_whole(state, source, name)
    if source == 'torchvision':
        _move_background(state, last=True)
    if target == 'torchvision':
        if len(state[f'{FC_REG}.weight']) != 4 * num_classes(state):
            raise CheckpointError(f'{name} has one box for all classes, which torchvision does not know')
        _move_background(state, last=False)
    if target in ('detectron2', 'torchvision'):
        state = {old: value for old, value in state.items() if not old.endswith('num_batches_tracked')}
    return {to_theirs(old, RULES[target]) or old: value for old, value in state.items()}


def num_classes(state_dict: dict[str, Tensor]) -> int:
    """K, without the background, of a detector under frdet's names."""
    return len(state_dict[f'{FC_CLS}.weight']) - 1


def _check_whole(state: dict[str, Tensor], source: str, name: str) -> None:
    def theirs(ours: str) -> str:
        return to_theirs(ours, RULES[source]) or ours

    missing = [theirs(ours) for ours in lacking(state)]
    apart = [' beside '.join(f'{theirs(ours)} {tuple(state[ours].shape)}' for ours in pair) for pair in unequal(state)]
    for verb, found in (('lacks', missing), ('has parameters that do not go together:', apart)):
        if found:
            which = ', '.join(found[:3]) + (f' and {len(found) - 3} more' if len(found) > 3 else '')
            raise CheckpointError(f'{name} cannot be converted, it is not whole: it {verb} {which}')


def _check_box_head(state: dict[str, Tensor], background_boxes: bool, name: str) -> None:
    """Scores have K + 1 rows, boxes 4 K, 4 where they are one for all classes, or 4 (K + 1) in torchvision."""
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
    """From torchvision's place to the others', or back; changes the dict and none of its tensors."""
    for kind in ('weight', 'bias'):
        scores, boxes = state[f'{FC_CLS}.{kind}'], state[f'{FC_REG}.{kind}']
        state[f'{FC_CLS}.{kind}'] = scores.roll(-1 if last else 1, dims=0)
        state[f'{FC_REG}.{kind}'] = boxes[4:].clone() if last else torch.cat([torch.zeros_like(boxes[:4]), boxes])
