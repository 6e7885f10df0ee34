"""Loading checkpoints without running code in them, and saving them as plain data.

MMEngine saves the history of every logged value as an object of its own class. ``torch.load`` refuses this class since
torch 2.6, so MMEngine 0.10 cannot resume; 0.11 resumes by letting the file run code. frdet saves histories as tensors,
which any ``torch.load(path, weights_only=True)`` reads, and makes histories of them again on loading.
"""

import inspect
import zipfile
from collections import Counter
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader

from frdet.checkpoints import class_names, convert_state_dict, layout_in_words, load_file, unwrap
from frdet.checkpoints.saving import check_whole
from frdet.errors import CheckpointError

_HISTORY = 'frdet.history'
#: Every kind of address that MMEngine knows: its own loaders would run code in the file.
_SCHEMES = [
    '', 'http://', 'https://', 'torchvision://', 'modelzoo://', 'detectron2://',
    'open-mmlab://', 'openmmlab://', 'mmcls://', 'pavi://', 'local://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://',
]  # fmt: skip


def load_from_disk(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load a checkpoint for MMEngine, from any address, without running code in the file.

    The checkpoint of a training run is returned unchanged. Any other file gives ``state_dict`` and ``meta``, which has
    the names of the classes if the file has them. The weights are converted to frdet's names if they are another
    project's Faster R-CNN. The layout is logged and returned under ``layout``.

    Raises:
        CheckpointError: the file is missing, damaged, unreadable, refused, or no checkpoint.
    """
    if zipfile.is_zipfile(filename):  # neither an address nor a file of another tool
        check_whole(filename)
    content = load_file(filename, map_location)
    if not isinstance(content, dict):
        raise CheckpointError(
            f'{filename} holds a {type(content).__name__}, expected a checkpoint: a dict with state_dict'
        )
    if 'message_hub' in content and isinstance(content.get('state_dict'), dict):
        print_log(f'{filename}: {layout_in_words(content["state_dict"])}', logger='current')
        return content
    state = unwrap(content, filename)
    layout = layout_in_words(state)
    if layout in ('layout detectron2', 'layout torchvision'):
        state = dict(convert_state_dict(state, name=filename))
    state = {name: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for name, v in state.items()}
    print_log(f'{filename}: {layout}', logger='current')
    meta = content['meta'] if isinstance(content.get('meta'), dict) else {}
    if (classes := class_names(content)) and 'classes' not in (meta.get('dataset_meta') or {}):
        meta = {**meta, 'dataset_meta': {'classes': classes}}
    kept = content if 'state_dict' in content else {}
    return {**kept, 'state_dict': state, 'meta': meta, 'layout': layout}


CheckpointLoader.register_scheme(prefixes=_SCHEMES, loader=load_from_disk, force=True)


def load_checkpoint(path: str, map_location: Any = 'cpu') -> dict[str, Any]:
    """Return a checkpoint with the keys ``state_dict`` and ``meta``; raises the errors of ``load_from_disk``."""
    checkpoint = {'meta': {}, **load_from_disk(path, map_location)}
    for name, value in checkpoint['state_dict'].items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(f'{path}: {name} is a {type(value).__name__}, expected a tensor, as train.py writes')
    return checkpoint


def with_layout(source: str, checkpoint: dict[str, Any]) -> str:
    """Return ``source`` and the recognised layout, for errors about a checkpoint that does not fit."""
    return f'{source} ({checkpoint.get("layout") or layout_in_words(checkpoint["state_dict"])})'


def to_plain(value: Any) -> Any:
    """Turn histories, numpy arrays and scalars into tensors and numbers, and drop functions, at any depth."""
    if isinstance(value, HistoryBuffer):
        log, counts = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in value.data)
        return {_HISTORY: log, 'counts': counts, 'max_length': value.max_length}
    if isinstance(value, dict) and not isinstance(value, Counter):  # torch.load takes a Counter as it is
        # A schedule holds functions of its class; a schedule built from the config has them again.
        return {to_plain(key): to_plain(item) for key, item in value.items() if not inspect.isroutine(item)}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(to_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return torch.from_numpy(value.copy())
    return value


def from_plain(value: Any) -> Any:
    """Turn the histories that ``to_plain`` flattened into MMEngine's objects again."""
    if not isinstance(value, dict):
        return value
    if _HISTORY in value:
        return HistoryBuffer(value[_HISTORY].tolist(), value['counts'].tolist(), value['max_length'])
    return {key: from_plain(item) for key, item in value.items()}
