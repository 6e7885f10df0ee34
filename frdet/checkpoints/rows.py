"""The rows of layers that depend on classes and anchors: their order in each project, and COCO's two numberings.

A anchors a cell, K classes. The rows of a layer are (A, K, values of a class); the background, if there is one, is one
more class. frdet puts it last, and orders anchors as its ``AnchorGenerator``: all ratios of the first size come first.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from frdet.errors import CheckpointError

#: COCO numbers its 80 classes from 1 to 90 and does not use these ids.
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
USED = [i - 1 for i in range(1, 91) if i not in UNUSED_IDS]  # labels: category ids minus 1
#: The logit of a class that does not exist: its probability is 0, and the other probabilities do not change.
_NEVER = -100.0
#: Aspect ratios of the anchors in every published detector of the three projects; the weights do not tell.
_RATIOS = 3


class Layer(NamedTuple):
    """How the rows of a layer are made: ``values`` a class and anchor; scores also have a background, or have none."""

    name: str
    values: int
    is_score: bool
    background: bool


_KINDS = {
    r'roi_head\.bbox_head(\.\d+)?\.fc_cls': (1, True, True),
    r'roi_head\.bbox_head(\.\d+)?\.fc_reg': (4, False, False),
    r'roi_head\.mask_head(\.\d+)?\.conv_logits': (1, False, False),
    r'bbox_head\.retina_cls': (1, True, False),
    r'bbox_head\.conv_cls': (1, True, False),
}
#: An RPN on a pyramid has one size in each level, so its anchors have the same order everywhere.
_ANCHORS_OF_SIZES = re.compile(r'bbox_head\.retina_(cls|reg)\.(weight|bias)')


def num_classes(state: dict[str, Tensor]) -> int:
    """Return K, without the background, of a detector under frdet's names."""
    layer = next(_layers(state))
    return len(state[f'{layer.name}.weight']) // _anchors(state, layer.name) - layer.background


def _layers(state: dict[str, Tensor]) -> Iterator[Layer]:
    """Yield the layers that have rows for each class, scores first."""
    for pattern, kind in _KINDS.items():
        for name in sorted(state):
            layer, _, ending = name.rpartition('.')
            if ending == 'weight' and re.fullmatch(pattern, layer):
                yield Layer(layer, *kind)


def _anchors(state: dict[str, Tensor], layer: str) -> int:
    """A of the layer; 1 where its rows do not depend on anchors."""
    return max(len(state['bbox_head.retina_reg.weight']) // 4, 1) if layer.startswith('bbox_head.retina_') else 1


def misshapen_rows(state: dict[str, Tensor], *, torchvisions: bool) -> Iterator[tuple[str, list[int], int]]:
    """Yield parameters of layers that depend on the classes and have another number of rows: name, expected, K.

    Boxes and masks may be shared by all classes, but not in torchvision, where every layer also has a background.
    """
    classes = num_classes(state)
    if torchvisions and 'rpn_head.rpn_cls.weight' not in state:  # one stage: the background counts as a class
        classes -= 1
    for layer, name, value in _parts(state):
        each = layer.values * _anchors(state, layer.name)
        expected = {each * (classes + (layer.background or torchvisions))}
        if not layer.is_score and not torchvisions:
            expected.add(each)
        if len(value) not in expected:
            yield name, sorted(expected), classes


def from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the background last where frdet has one, and drop it elsewhere; order the anchors as frdet does.

    torchvision's class 0 is the background, or is not used.
    """
    changed = dict(state)
    for layer, name, value in _parts(state):
        rows = value.unflatten(0, (_anchors(state, layer.name), -1, layer.values))
        rows = rows.roll(-1, dims=1) if layer.background else rows[:, 1:]
        changed[name] = rows.flatten(0, 2).clone()
    return order_anchors(changed, ratios_last=True)


def to_torchvision(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The reverse of ``from_torchvision``. A class 0 that frdet does not have never scores, and has boxes and masks 0.

    Raises:
        CheckpointError: all classes share a box or a mask.
    """
    state = order_anchors(state, ratios_last=False)
    changed = dict(state)
    classes = num_classes(state)
    for layer, key, value in _parts(state):
        anchors = _anchors(state, layer.name)
        if len(value) != anchors * layer.values * (classes + layer.background):
            what = 'box' if layer.values == 4 else 'mask'
            raise CheckpointError(f'{name} has one {what} for all classes, which torchvision does not know')
        rows = value.unflatten(0, (anchors, -1, layer.values))
        if layer.background:
            rows = rows.roll(1, dims=1)
        else:
            first = torch.full_like(rows[:, :1], _NEVER if layer.is_score and key.endswith('bias') else 0.0)
            rows = torch.cat([first, rows], dim=1)
        changed[key] = rows.flatten(0, 2)
    return changed


def _parts(state: dict[str, Tensor]) -> Iterator[tuple[Layer, str, Tensor]]:
    for layer in _layers(state):
        for kind in ('weight', 'bias'):
            if (name := f'{layer.name}.{kind}') in state:
                yield layer, name, state[name]


def order_anchors(state: dict[str, Tensor], *, ratios_last: bool) -> dict[str, Tensor]:
    """Order the rows of anchors of several sizes as frdet and detectron2 do, or as torchvision and MMDetection do.

    frdet and detectron2 count (size, ratio), so that the ratio changes first; the others count (ratio, size).

    Args:
        state: weights under frdet's names.
        ratios_last: from the order of torchvision to that of frdet, or else from frdet's to torchvision's.

    Raises:
        CheckpointError: how many ratios there are does not follow from the number of anchors.
    """
    changed = dict(state)
    for name, value in state.items():
        if not _ANCHORS_OF_SIZES.fullmatch(name):
            continue
        anchors = _anchors(state, name)
        sizes, rest = divmod(anchors, _RATIOS)
        if all(anchors % i for i in range(2, anchors)) or (sizes, rest) == (1, 0):  # one size, or one ratio
            continue
        if rest or len(value) % anchors:
            raise CheckpointError(
                f'{name} has {len(value)} rows for {anchors} anchors a cell: expected anchors of {_RATIOS} ratios in '
                'each size. The order of others does not follow from the weights'
            )
        split = (_RATIOS, sizes) if ratios_last else (sizes, _RATIOS)
        changed[name] = value.unflatten(0, (*split, -1)).transpose(0, 1).flatten(0, 2).contiguous()
    return changed


def map_coco_classes(state_dict: dict[str, Tensor], count: int, name: str = 'The state dict') -> dict[str, Tensor]:
    """Map a detector's classes between COCO's 80 classes and its 90 category ids, which torchvision uses as labels.

    Unused ids get the probability 0. ``count`` is 80 or 90; a state dict that has ``count`` classes already is returned
    unchanged. ``name`` is the file, for errors.

    Raises:
        CheckpointError: the detector has neither 80 nor 90 classes.
    """
    found = num_classes(state_dict)
    if {found, count} - {80, 90}:
        raise CheckpointError(f"{name} has {found} classes: COCO's 80 or 90 can be mapped to {count}, no others")
    if found == count:
        return state_dict
    mapped = dict(state_dict)
    for layer, key, value in _parts(state_dict):
        anchors = _anchors(state_dict, layer.name)
        if len(value) == anchors * layer.values:  # shared by all classes
            continue
        rows = value.unflatten(0, (anchors, -1, layer.values)).transpose(0, 1)
        fill = _NEVER if layer.is_score and key.endswith('bias') else 0.0
        used = [*USED, 90] if layer.background else USED
        mapped[key] = _mapped(rows, used, count + layer.background, fill).transpose(0, 1).flatten(0, 2)
    return mapped


def _mapped(values: Tensor, rows: list[int], length: int, fill: float) -> Tensor:
    """Take ``rows`` of the values, or write the values into these rows of a tensor of ``length`` rows."""
    if length == len(rows):
        return values[rows]
    out = values.new_full((length, *values.shape[1:]), fill)
    out[rows] = values
    return out
