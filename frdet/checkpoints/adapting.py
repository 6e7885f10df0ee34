"""A detector's weights for another list of COCO's classes, or for another input; under frdet's names."""

from collections.abc import Sequence

import torch
from torch import Tensor

from frdet.checkpoints.detectors import FC_CLS, FC_REG, num_classes
from frdet.errors import CheckpointError

#: COCO numbers its 80 classes from 1 to 90 and leaves these out.
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
#: The labels, category ids minus 1, of the classes there are.
_USED = [i - 1 for i in range(1, 91) if i not in UNUSED_IDS]
PLACEHOLDER = 'N/A'
#: Logit of a class that does not exist: its probability is 0, and the others stay as they are.
_NEVER = -100.0

#: Order of the channels, and what they are divided by in that order, for pixels of 0..255.
Input = tuple[str, tuple[float, float, float]]
#: detectron2's, with Caffe's ResNet.
BGR: Input = ('BGR', (1.0, 1.0, 1.0))
#: MMDetection's and torchvision's, 255 * (0.229, 0.224, 0.225), with torchvision's ResNet.
RGB: Input = ('RGB', (58.395, 57.12, 57.375))


def map_coco_classes(state_dict: dict[str, Tensor], count: int, name: str = 'The state dict') -> dict[str, Tensor]:
    """COCO's classes as 80 in a row, or as the 90 ids up to the last one, which torchvision has.

    Classes without an id get the probability 0. A state dict that has ``count`` classes is returned as it is.

    Args:
        state_dict: under frdet's names.
        count: 80 or 90.
        name: the file, for errors.

    Raises:
        CheckpointError: the detector has neither 80 nor 90 classes.
    """
    found = num_classes(state_dict)
    if {found, count} - {80, 90}:
        raise CheckpointError(f"{name} has {found} classes: COCO's 80 or 90 can be mapped to {count}, no others")
    if found == count:
        return state_dict
    mapped = dict(state_dict)
    for kind in ('weight', 'bias'):
        scores, boxes = state_dict[f'{FC_CLS}.{kind}'], state_dict[f'{FC_REG}.{kind}']
        mapped[f'{FC_CLS}.{kind}'] = _mapped(scores, [*_USED, 90], count + 1, _NEVER if kind == 'bias' else 0.0)
        if len(boxes) != 4:  # one box for all classes
            grouped = boxes.unflatten(0, (found, 4))
            mapped[f'{FC_REG}.{kind}'] = _mapped(grouped, _USED, count, 0.0).flatten(0, 1)
    return mapped


def _mapped(values: Tensor, rows: list[int], length: int, fill: float) -> Tensor:
    """Take ``rows``, or put what there is into these rows of ``length``."""
    if length == len(rows):
        return values[rows]
    out = values.new_full((length, *values.shape[1:]), fill)
    out[rows] = values
    return out


def map_coco_names(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """Names of the classes in the way ``map_coco_classes`` maps them; classes without an id are 'N/A'."""
    if len(classes) == count:
        return tuple(classes)
    if count == 80:
        return tuple(classes[i] for i in _USED)
    names = dict(zip(_USED, classes, strict=True))
    return tuple(names.get(i, PLACEHOLDER) for i in range(90))


def change_input(state_dict: dict[str, Tensor], *, source: Input, target: Input) -> dict[str, Tensor]:
    """The first convolution for images in another order of channels and another std.

    The network computes the same from (x - mean) / std of the new input as before from that of the old one, padding
    with zeros included, if both means are the same colour. Names and shapes do not tell what a file expects.

    Args:
        state_dict: under frdet's names.
        source: what the weights expect, such as ``BGR``.
        target: what they will be given, such as ``RGB``.
    """
    (old_order, old_std), (new_order, new_std) = source, target
    index = [old_order.index(colour) for colour in new_order]
    factor = torch.tensor([new_std[i] / old_std[j] for i, j in enumerate(index)])
    weight = state_dict['backbone.conv1.weight']
    return {**state_dict, 'backbone.conv1.weight': weight[:, index] * factor.view(1, 3, 1, 1)}
