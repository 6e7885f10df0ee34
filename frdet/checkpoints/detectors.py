"""Detectors with ResNet and FPN under the names of frdet, MMDetection, detectron2 and torchvision.

Three layouts share MMDetection's names; the other two are converted through these names. ``families.py`` has the names
of each family, ``rows.py`` the order of classes and anchors.
"""

import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from torch import Tensor

from frdet.checkpoints.backbones import to_ours, to_tensor, to_theirs
from frdet.checkpoints.families import FASTER, LAYOUTS, Family, identify, in_words, rules_of
from frdet.checkpoints.fit import few
from frdet.checkpoints.rows import from_torchvision, order_anchors, to_torchvision
from frdet.checkpoints.wholeness import check_whole
from frdet.errors import CheckpointError

CONVERTED = 'Faster, Mask and Cascade R-CNN, RetinaNet and FCOS with ResNet and FPN'
#: What projects keep beside the weights: buffers that detectron2 computes from its config, and an average of losses.
_NOT_WEIGHTS = re.compile(r'pixel_(mean|std)|(proposal_generator\.)?anchor_generator\..*|bbox_head\.loss_normalizer')
#: Known parts that are not converted: pattern -> words.
_OTHER_PARTS = {
    r'mask': 'a mask head',
    r'keypoint': 'a keypoint head',
    r'sem_seg': 'a head of semantic segmentation',
    r'offset': 'deformable convolutions',
}
#: MMDetection's names of a GroupNorm, in layers that frdet calls alike; and its first names of FCOS.
_GN = re.compile(
    r'(backbone\.(?:layer\d+\.\d+\.)?|(?:.*_convs|.*mask_head(?:\.\d+)?\.convs|rpn_conv)\.\d+\.)gn(\d?\..*)'
)
_BN = re.compile(_GN.pattern.replace('gn(', 'bn('))
_OLD_FCOS = re.compile(r'bbox_head\.fcos_(cls|reg|centerness)\.(.*)')


def recognise(state_dict: Iterable[str]) -> str | None:
    """Return 'frdet' (also for MMDetection), 'detectron2' or 'torchvision' by the names alone; None for other models.

    Only the layers that a family is known by count: ``misfits`` names parts that are not converted.
    """
    found = identify(_without_old_names(state_dict))
    return found[0] if found else None


def is_mmdets(state_dict: Iterable[str]) -> bool:
    """Whether a head has a name that MMDetection writes and frdet does not. Most files have none."""
    return any((_GN.fullmatch(n) and not n.startswith('backbone.')) or _OLD_FCOS.fullmatch(n) for n in state_dict)


def misfits(state_dict: Collection[str], layout: str) -> str | None:
    """Say why the names are not those of a detector that is converted from this layout; None if they are."""
    names = _without_old_names(state_dict)
    family = _family(names)
    rules = rules_of(family, layout, names)
    ours = {name: to_ours(_GN.sub(r'\1bn\2', name), rules) for name in names if not _NOT_WEIGHTS.fullmatch(name)}
    if left := sorted(name for name, new in ours.items() if new is None):
        words = [text for pattern, text in _OTHER_PARTS.items() if any(re.search(pattern, name) for name in left)]
        return f'it has {" and ".join(words) or f"more than {in_words(family, names)}"}: {few(left)}'
    present = set(ours.values())
    if missing := [to_theirs(name, rules) or name for name in family.needed() if name not in present]:
        return f'it lacks {", ".join(missing[:3])}'
    return None


def _family(names: Collection[str]) -> Family:
    """The family by the names. Where there is none, errors are about what a Faster R-CNN lacks."""
    found = identify(names)
    return found[1] if found else FASTER


def _without_old_names(names: Iterable[str]) -> list[str]:
    return [_OLD_FCOS.sub(r'bbox_head.conv_\1.\2', name) for name in names]


def from_mmdet(state: dict[str, Any]) -> dict[str, Any]:
    """Return MMDetection's weights as frdet names and orders them; parts that frdet does not know stay as they are.

    MMDetection calls a GroupNorm ``gn``, and orders anchors of several sizes by ratio.
    """
    renamed = {_GN.sub(r'\1bn\2', _OLD_FCOS.sub(r'bbox_head.conv_\1.\2', name)): v for name, v in state.items()}
    return order_anchors(renamed, ratios_last=True)


def _to_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    def named(name: str) -> str:
        return name if f'{name.rpartition(".")[0]}.running_mean' in state else _BN.sub(r'\1gn\2', name)

    return {named(name): value for name, value in order_anchors(state, ratios_last=False).items()}


def convert_state_dict(
    state_dict: dict[str, Any], *, source: str = 'auto', target: str = 'frdet', name: str = 'The state dict'
) -> dict[str, Tensor]:
    """Convert a detector's weights to another project's names; returns tensors in float32.

    torchvision's background is the first class, in other projects it is the last. torchvision's layers of boxes and
    masks, and all layers of its one-stage detectors, have rows for it that are never used: reading drops them, and
    writing fills them with zeros, or with a logit of -100. torchvision and MMDetection order anchors of several sizes
    by ratio, frdet and detectron2 by size. BatchNorm's counters of batches are dropped for detectron2 and torchvision.

    Args:
        state_dict: names -> arrays or tensors.
        source: one of ``LAYOUTS``, or 'auto' to recognise it. 'auto' takes names that both have for frdet's.
        target: one of ``LAYOUTS``.
        name: the file, for errors.

    Raises:
        CheckpointError: the layout is unknown, or the names or shapes are not those of a detector that converts.
    """
    if unknown := {source, target} - {'auto', *LAYOUTS} or {target} - set(LAYOUTS):
        raise CheckpointError(f'No layout {unknown.pop()!r}: expected {", ".join(LAYOUTS)}')
    if source == 'auto':
        source = 'mmdet3' if is_mmdets(state_dict) else recognise(state_dict) or ''
        if not source:
            raise CheckpointError(
                f'{name} is in no known layout: it has {", ".join(list(state_dict)[:3])}, ...; expected the names of '
                f'a detector of {", ".join(LAYOUTS)}'
            )
    if why := misfits(state_dict, source):
        raise CheckpointError(f"{name} cannot be converted from {source}'s names: {why}.\nOnly {CONVERTED} convert")
    state, family = _read(state_dict, source, name)
    return _write(state, family, target, name)


def _read(state_dict: dict[str, Any], source: str, name: str) -> tuple[dict[str, Tensor], Family]:
    """Return the weights under frdet's names and in frdet's order, and their family."""
    names = _without_old_names(state_dict)
    family = _family(names)
    rules = rules_of(family, source, names)
    state = {}
    for old, value in zip(names, state_dict.values(), strict=True):
        if (new := to_ours(_GN.sub(r'\1bn\2', old), rules)) is not None:
            state[new] = to_tensor(value, old, name)
    check_whole(state, name, _namer(rules), torchvisions=source == 'torchvision')
    if source == 'torchvision':
        state = from_torchvision(state)
    elif source.startswith('mmdet'):
        state = order_anchors(state, ratios_last=True)
    return state, family


def _namer(rules: Any) -> Callable[[str], str]:
    return lambda ours: to_theirs(ours, rules) or ours


def _write(state: dict[str, Tensor], family: Family, target: str, name: str) -> dict[str, Tensor]:
    if target == 'frdet':
        return state
    if target.startswith('mmdet'):
        return _to_mmdet(state)
    rules = rules_of(family, target, state)
    state = {ours: value for ours, value in state.items() if not ours.endswith('num_batches_tracked')}
    if left := [ours for ours in state if to_theirs(ours, rules) is None]:
        words = in_words(family, state)
        raise CheckpointError(f'{name} holds {words} with parameters that {target} does not have: {few(left)}')
    if target == 'torchvision':
        state = to_torchvision(state, name)
    return {_namer(rules)(ours): value for ours, value in state.items()}
