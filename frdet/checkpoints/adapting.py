"""Adapting a detector's weights, under frdet's names, to another list of COCO's classes or to another input."""

from collections.abc import Sequence

import torch
from torch import Tensor

from frdet.checkpoints.detectors import FC_CLS, FC_REG, num_classes
from frdet.errors import CheckpointError

#: COCO numbers its 80 classes from 1 to 90 and does not use these ids.
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_USED = [i - 1 for i in range(1, 91) if i not in UNUSED_IDS]  # labels: category ids minus 1
PLACEHOLDER = 'N/A'
#: The logit of an unused id: its probability is 0, and the other probabilities do not change.
_NEVER = -100.0

#: The order of the channels, and the standard deviation of each channel in this order, for pixels of 0..255.
Input = tuple[str, tuple[float, float, float]]
#: The input of detectron2 with Caffe's ResNet.
BGR: Input = ('BGR', (1.0, 1.0, 1.0))
#: The input of MMDetection and torchvision with torchvision's ResNet: 255 * (0.229, 0.224, 0.225).
RGB: Input = ('RGB', (58.395, 57.12, 57.375))


def map_coco_classes(state_dict: dict[str, Tensor], count: int, name: str = 'The state dict') -> dict[str, Tensor]:
    """Map the head's classes between COCO's 80 classes and its 90 category ids, which torchvision uses as labels.

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
    for kind in ('weight', 'bias'):
        scores, boxes = state_dict[f'{FC_CLS}.{kind}'], state_dict[f'{FC_REG}.{kind}']
        mapped[f'{FC_CLS}.{kind}'] = _mapped(scores, [*_USED, 90], count + 1, _NEVER if kind == 'bias' else 0.0)
        if len(boxes) != 4:  # one box for all classes
            grouped = boxes.unflatten(0, (found, 4))
            mapped[f'{FC_REG}.{kind}'] = _mapped(grouped, _USED, count, 0.0).flatten(0, 1)
    return mapped


def _mapped(values: Tensor, rows: list[int], length: int, fill: float) -> Tensor:
    """Take ``rows`` of the values, or write the values into these rows of a tensor of ``length`` rows."""
    if length == len(rows):
        return values[rows]
    out = values.new_full((length, *values.shape[1:]), fill)
    out[rows] = values
    return out


def map_coco_names(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """Map class names as ``map_coco_classes`` maps classes; the names of unused ids are 'N/A'."""
    if len(classes) == count:
        return tuple(classes)
    if count == 80:
        return tuple(classes[i] for i in _USED)
    names = dict(zip(_USED, classes, strict=True))
    return tuple(names.get(i, PLACEHOLDER) for i in range(90))


def change_input(state_dict: dict[str, Tensor], *, source: Input, target: Input) -> dict[str, Tensor]:
    """Change the first convolution for images with another order of channels and another standard deviation.

    The network's outputs for the new input (x - mean) / std are those for the old input, also where images are padded
    with zeros, if both means are the same colour. ``source`` is the input that the weights were trained with, such as
    ``BGR``, which their names and shapes do not tell; ``target`` is the input that they will get.
    """
    (old_order, old_std), (new_order, new_std) = source, target
    index = [old_order.index(colour) for colour in new_order]
    factor = torch.tensor([new_std[i] / old_std[j] for i, j in enumerate(index)])
    weight = state_dict['backbone.conv1.weight']
    return {**state_dict, 'backbone.conv1.weight': weight[:, index] * factor.view(1, 3, 1, 1)}
