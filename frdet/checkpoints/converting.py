"""Files of whole detectors: what is in one, and writing one for another project."""

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
    """What the labels are called, from ``meta``: ``dataset_meta.classes``, or ``CLASSES`` of MMDetection 2."""
    meta = content.get('meta')
    if not isinstance(meta, dict):
        return None
    places = {**meta, **(meta.get('dataset_meta') or {})}
    classes = places.get('classes') or places.get('CLASSES')
    return tuple(classes) if classes and not isinstance(classes, str) else None


def layout_in_words(state: dict[str, Any]) -> str:
    """For logs and errors: the layout of the names, and what speaks against it."""
    layout = recognise(state)
    if layout is None:
        return 'no known layout of a detector'
    why = misfits(state, layout) if layout != 'frdet' else None
    return f'layout {layout}, but {why}' if why else f'layout {layout}'


def read_detector(path: str | Path, source: str = 'auto') -> tuple[dict[str, Tensor], str, tuple[str, ...] | None]:
    """A detector's weights under frdet's names, the layout they came in, and its class names if the file has one
    for each class.

    Args:
        path: a path or any address that ``resolve`` takes.
        source: the layout; 'auto' recognises it.

    Raises:
        CheckpointError: the file is unreadable or refused, or no Faster R-CNN in a known layout.
    """
    content = load_file(path)
    state = unwrap(content, path)
    layout = recognise(state) if source == 'auto' else source
    if layout is None and _is_backbone(state):
        raise CheckpointError(
            f'{path} holds a ResNet and no detector: nothing to convert. A config takes it as it is, with '
            f"model.backbone.init_cfg=dict(type='Pretrained', checkpoint='{path}')"
        )
    converted = convert_state_dict(state, source=layout or 'auto', name=str(path))
    classes = class_names(content)
    # A data set's names outlive its labels: a head trained on other classes than they say is left unnamed.
    fit = classes is not None and len(classes) == num_classes(converted)
    return converted, layout or source, classes if fit else None


def _is_backbone(state: dict[str, Any]) -> bool:
    try:
        convert_backbone(state, '')
    except CheckpointError:
        return False
    return True


def write_detector(
    path: str | Path, state: dict[str, Tensor], layout: str, classes: tuple[str, ...] | None = None
) -> None:
    """Write a detector in the way of ``layout``; the file appears only when it is whole.

    Args:
        path: ends in .pth, or .pkl for detectron2.
        state: under frdet's names.
        layout: one of ``LAYOUTS``.
        classes: what the labels are called; frdet and MMDetection keep it.

    Raises:
        CheckpointError: another suffix, no such folder, or no space or right to write.
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
    """Raise CheckpointError if ``layout`` is not written into files of this suffix."""
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
        # The author tells detectron2 that names are its own and need no matching by heuristics.
        return {'model': arrays, '__author__': 'frdet', 'matching_heuristics': False}
    meta: dict[str, Any] = {}
    if classes:
        meta = {'CLASSES': classes} if layout == 'mmdet2' else {'dataset_meta': {'classes': classes}}
    return {'state_dict': state, 'meta': meta}
