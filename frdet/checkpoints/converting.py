"""Files of whole detectors: reading them, and writing them for another project."""

import contextlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frdet.checkpoints.backbones import convert_backbone
from frdet.checkpoints.detectors import LAYOUTS, convert_state_dict, misfits, num_classes, recognise
from frdet.checkpoints.reading import load_file, unwrap
from frdet.errors import CheckpointError
from frdet.files import write_file

_PICKLES = ('.pkl', '.pickle')


def class_names(content: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the class names in ``meta``: ``dataset_meta.classes``, or ``CLASSES`` of MMDetection 2."""
    meta = content.get('meta')
    if not isinstance(meta, dict):
        return None
    meta = {**meta, **(meta.get('dataset_meta') or {})}
    classes = meta.get('classes') or meta.get('CLASSES')
    return tuple(classes) if classes and not isinstance(classes, str) else None


def layout_in_words(state: dict[str, Any]) -> str:
    """Describe the layout of the names, and why it does not fit, for logs and errors."""
    layout = recognise(state)
    if layout in (None, 'frdet'):
        return 'names of no known project, used as they are' if layout is None else 'layout frdet'
    return f'layout {layout}, but {why}' if (why := misfits(state, layout)) else f'layout {layout}'


def read_detector(path: str | Path, source: str = 'auto') -> tuple[dict[str, Tensor], str, tuple[str, ...] | None]:
    """Return a detector's weights under frdet's names, the layout of the file, and one name a class if it has them.

    ``path`` may be any address that ``resolve`` takes. ``source`` is the layout; 'auto' recognises it.

    Raises:
        CheckpointError: the file is unreadable or refused, or holds no Faster R-CNN in a known layout.
    """
    content = load_file(path)
    state = unwrap(content, path)
    layout = recognise(state) if source == 'auto' else source
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
    if path.suffix in _PICKLES:
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
    return {'state_dict': state, 'meta': meta}
