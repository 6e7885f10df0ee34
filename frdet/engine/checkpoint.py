"""Checkpoints that hold data and no code: how they are loaded, and what is changed before they are saved.

MMEngine saves the history of every logged figure as an object of its own class. ``torch.load`` refuses it since torch
2.6, so that MMEngine 0.10 cannot resume; 0.11 resumes by letting the file run code. Here histories are saved as
tensors, which any ``torch.load(path, weights_only=True)`` reads, and turned back on loading.
"""

import zipfile
from collections import Counter
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from frdet.engine.saving import check_whole
from frdet.errors import CheckpointError
from frdet.interop import load_file

_HISTORY = 'frdet.history'
#: Every kind of address MMEngine knows: the loaders it has for them would trust the file.
_SCHEMES = [
    '', 'http://', 'https://', 'torchvision://', 'modelzoo://', 'detectron2://',
    'open-mmlab://', 'openmmlab://', 'mmcls://', 'pavi://', 'local://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://',
]  # fmt: skip


def load_from_disk(filename: str, map_location: Any = None) -> dict[str, Any]:
    """MMEngine's loader of every address, through ``frdet.interop.load_file``: no code in a file is run.

    Raises:
        CheckpointError: the file is missing, damaged, unreadable, refused, or no checkpoint.
    """
    if zipfile.is_zipfile(filename):  # not an address, nor a file of other tools
        check_whole(filename)
    content = load_file(filename, map_location)
    if not isinstance(content, dict):
        raise CheckpointError(
            f'{filename} holds a {type(content).__name__}, expected a checkpoint: a dict with state_dict'
        )
    return content


CheckpointLoader.register_scheme(prefixes=_SCHEMES, loader=load_from_disk, force=True)


def load_checkpoint(path: str, map_location: Any = 'cpu') -> dict[str, Any]:
    """A checkpoint with the keys ``state_dict`` and ``meta``; a bare state dict gets an empty ``meta``.

    Raises:
        CheckpointError: the file is missing, unreadable, refused, or no checkpoint.
    """
    content = load_from_disk(path, map_location)
    checkpoint = content if isinstance(content.get('state_dict'), dict) else {'state_dict': content}
    if not all(isinstance(value, torch.Tensor) for value in checkpoint['state_dict'].values()):
        keys = ', '.join(map(str, content))[:80]
        raise CheckpointError(f'{path} has the keys {keys}: expected state_dict, as train.py writes')
    return {'meta': {}, **checkpoint}


def to_plain(value: Any) -> Any:
    """``value`` with histories, numpy arrays and scalars as tensors and numbers, at any depth."""
    if isinstance(value, HistoryBuffer):
        log, counts = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in value.data)
        return {_HISTORY: log, 'counts': counts, 'max_length': value.max_length}
    if isinstance(value, dict) and not isinstance(value, Counter):  # torch.load takes a Counter as it is
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(to_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return torch.from_numpy(value.copy())
    return value


def from_plain(value: Any) -> Any:
    """Histories that ``to_plain`` flattened, as MMEngine's objects again."""
    if not isinstance(value, dict):
        return value
    if _HISTORY in value:
        return HistoryBuffer(value[_HISTORY].tolist(), value['counts'].tolist(), value['max_length'])
    return {key: from_plain(item) for key, item in value.items()}
