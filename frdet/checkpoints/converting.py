"""Files of whole detectors: reading them, and writing them for another project, other classes or another input."""

import contextlib
import io
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frdet.checkpoints.backbones import convert_backbone
from frdet.checkpoints.detectors import convert_state_dict, is_mmdets, misfits, recognise
from frdet.checkpoints.families import LAYOUTS
from frdet.checkpoints.reading import load_file, unwrap
from frdet.checkpoints.rows import USED, num_classes
from frdet.errors import CheckpointError
from frdet.files import write_file

PLACEHOLDER = 'N/A'

#: The order of the channels, and the standard deviation of each channel in this order, for pixels of 0..255.
Input = tuple[str, tuple[float, float, float]]
#: The input of detectron2 with Caffe's ResNet.
BGR: Input = ('BGR', (1.0, 1.0, 1.0))
#: The input of MMDetection and torchvision with torchvision's ResNet: 255 * (0.229, 0.224, 0.225).
RGB: Input = ('RGB', (58.395, 57.12, 57.375))


def class_names(content: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the class names in ``meta``: ``dataset_meta.classes``, or ``CLASSES`` of MMDetection 2."""
    meta = content.get('meta')
    if not isinstance(meta, dict):
        return None
    meta = {**meta, **(meta.get('dataset_meta') or {})}
    classes = meta.get('classes') or meta.get('CLASSES')
    return tuple(classes) if classes and not isinstance(classes, str) else None


def layout_of(content: Any, state: dict[str, Any]) -> str | None:
    """Return the layout of a file's weights; None for models of no known family.

    The names decide. Most of MMDetection's are frdet's, so its files are known by what ``meta`` says: the version of
    MMDetection 2, the config of MMDetection 3, or the layout in a file that ``write_detector`` wrote.
    """
    layout = recognise(state)
    if layout != 'frdet':
        return layout
    meta = content.get('meta') if isinstance(content, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    if 'mmdet_version' in meta:
        return 'mmdet2'
    if is_mmdets(state) or re.search(r"""default_scope\s*=\s*['"]mmdet['"]""", str(meta.get('cfg', ''))):
        return 'mmdet3'
    return meta['layout'] if meta.get('layout') in LAYOUTS else layout


def layout_in_words(state: dict[str, Any], layout: str | None) -> str:
    """Describe the layout of the names, and why it does not fit, for logs and errors."""
    if layout is None:
        return 'names of no known project, used as they are'
    why = misfits(state, layout) if layout in ('detectron2', 'torchvision') else None
    return f'layout {layout}, but {why}' if why else f'layout {layout}'


def read_detector(path: str | Path, source: str = 'auto') -> tuple[dict[str, Tensor], str, tuple[str, ...] | None]:
    """Return a detector's weights under frdet's names, the layout of the file, and one name a class if it has them.

    ``path`` may be any address that ``resolve`` takes. ``source`` is the layout; 'auto' recognises it.

    Raises:
        CheckpointError: the file is unreadable or refused, or holds no detector that converts.
    """
    content = load_file(path)
    state = unwrap(content, path)
    layout = layout_of(content, state) if source == 'auto' else source
    if layout is None:
        with contextlib.suppress(CheckpointError):
            convert_backbone(state, '')
            layout = 'backbone'
    if layout == 'backbone':
        raise CheckpointError(
            f'{path} holds a ResNet and no detector: nothing to convert. A config takes this file as it is, with '
            f"model.backbone.init_cfg=dict(type='Pretrained', checkpoint='{path}')"
        )
    converted = convert_state_dict(state, source=layout or 'auto', name=str(path))
    classes = class_names(content)
    # A head may have been trained on other classes than the data set's names say.
    fit = classes is not None and len(classes) == num_classes(converted)
    return converted, layout or source, classes if fit else None


def write_detector(
    path: str | Path, state: dict[str, Tensor], layout: str, classes: tuple[str, ...] | None = None
) -> None:
    """Write weights under frdet's names in one of ``LAYOUTS``; the file appears only when it is complete.

    ``path`` ends in .pth, or .pkl for detectron2. Only the layouts of frdet and MMDetection hold the class names.

    Raises:
        CheckpointError: the suffix is another one, or the file cannot be written.
    """
    path = Path(path)
    check_target(path, layout)
    content = _wrapped(convert_state_dict(state, source='frdet', target=layout), path, layout, classes)
    buffer = io.BytesIO()
    if path.suffix == '.pkl':
        pickle.dump(content, buffer, protocol=4)
    else:
        torch.save(content, buffer)
    try:
        write_file(path, buffer.getbuffer())
    except OSError as error:
        raise CheckpointError(f'Cannot write {path}: {error.strerror or error}') from error


def check_target(path: Path, layout: str) -> None:
    """Raise CheckpointError if files of ``layout`` do not have this suffix."""
    if layout not in LAYOUTS:
        raise CheckpointError(f'No layout {layout!r}: expected {", ".join(LAYOUTS)}')
    suffixes = ('.pkl', '.pth') if layout == 'detectron2' else ('.pth', '.pt')
    if path.suffix not in suffixes:
        raise CheckpointError(f'{path}: a file of layout {layout} ends in {" or ".join(suffixes)}')


def _wrapped(state: dict[str, Tensor], path: Path, layout: str, classes: tuple[str, ...] | None) -> dict[str, Any]:
    state = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    if layout == 'torchvision':
        return dict(state)
    if layout == 'detectron2':
        if path.suffix == '.pth':
            return {'model': state}
        arrays = {name: value.numpy() for name, value in state.items()}
        # The keys tell detectron2 that the names are its own and need no matching by heuristics.
        return {'model': arrays, '__author__': 'frdet', 'matching_heuristics': False}
    meta: dict[str, Any] = {}
    if classes:
        meta = {'CLASSES': classes} if layout == 'mmdet2' else {'dataset_meta': {'classes': classes}}
    if layout != 'frdet':
        meta['layout'] = layout
    return {'state_dict': state, 'meta': meta}


def map_coco_names(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """Map class names as ``map_coco_classes`` maps classes; the names of unused ids are 'N/A'."""
    if len(classes) == count:
        return tuple(classes)
    if count == 80:
        return tuple(classes[i] for i in USED)
    names = dict(zip(USED, classes, strict=True))
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
