"""Checkpoints of training runs: written completely or not at all, and loaded without running code in them.

MMEngine saves the history of every logged value as an object of its own class. ``torch.load`` refuses this class since
torch 2.6, so MMEngine 0.10 cannot resume; 0.11 resumes by letting the file run code. frdet saves histories as tensors,
which any ``torch.load(path, weights_only=True)`` reads, and makes histories of them again on loading.
"""

import inspect
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader

from frdet.checkpoints.converting import class_names, layout_in_words, layout_of
from frdet.checkpoints.detectors import convert_state_dict, from_mmdet, recognise
from frdet.checkpoints.fit import warn
from frdet.checkpoints.reading import load_file, unwrap
from frdet.errors import CheckpointError
from frdet.files import write_file

_HISTORY = 'frdet.history'
#: Every kind of address that MMEngine knows: its own loaders would run code in the file.
_SCHEMES = [
    '', 'http://', 'https://', 'torchvision://', 'modelzoo://', 'detectron2://',
    'open-mmlab://', 'openmmlab://', 'mmcls://', 'pavi://', 'local://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://',
]  # fmt: skip


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file as ``frdet.files.write_file`` does, with an error message for checkpoints.

    Raises:
        CheckpointError: the disk is full, or the folder is missing or read-only; an earlier file is kept.
    """
    path = Path(path)
    try:
        write_file(path, content)
    except OSError as error:
        raise CheckpointError(
            f'{path.name} could not be saved into {path.parent}: {error.strerror or error}. Earlier checkpoints '
            'are intact.\nMake room or repair the folder, then continue with --resume'
        ) from error


class WholeFileBackend(LocalBackend):
    """MMEngine's backend of local files that writes by ``write_whole`` and creates no folders."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_whole(filepath, obj)


WHOLE = 'frdet.whole'
register_backend(WHOLE, WholeFileBackend, force=True)


def check_whole(path: str | Path) -> None:
    """Compare every part of a checkpoint with its checksum, which ``torch.load`` does not do.

    Raises:
        CheckpointError: the file is missing, truncated or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken is None:
            return
        reason = f'the checksum of {broken} differs'
    except OSError as error:
        reason = error.strerror or str(error)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = f'{error}; it may be truncated'
    raise CheckpointError(f'Checkpoint {path} is broken ({reason}): resume from another one')


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the path that ``last_checkpoint`` names, which may not exist; None without such a file."""
    pointer = Path(work_dir, 'last_checkpoint')
    if not pointer.is_file():
        return None
    named = Path(pointer.read_text().strip())
    here = Path(work_dir, named.name)
    # The work dir may have been moved or copied.
    return named if named.parent.is_dir() and not here.is_file() else here


def newest_whole(work_dir: str | Path) -> str | None:
    """Return the checkpoint to resume from: the one in ``last_checkpoint``, or the newest other one if it is broken.

    Each broken checkpoint gives a warning. Without any checkpoint the result is None.

    Raises:
        CheckpointError: all checkpoints are broken.
    """
    last = last_checkpoint(work_dir)
    folder, named = (last.parent, [last]) if last else (Path(work_dir), [])
    others = [path for path in folder.glob('*.pth') if not path.name.startswith('best_') and path not in named]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    broken = []
    for path in named + others:
        try:
            check_whole(path)
        except CheckpointError as error:
            broken.append(path.name)
            warn(str(error))
        else:
            if broken:
                warn(f'Resuming from {path} instead')
            return str(path)
    if broken:
        raise CheckpointError(
            f'No checkpoint in {folder} is whole: {", ".join(broken)}. Train anew without --resume, or give another '
            'checkpoint with --resume PATH'
        )
    return None


def load_from_disk(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Load a checkpoint for MMEngine, from any address, without running code in the file.

    The checkpoint of a training run of frdet is returned unchanged. Any other file gives ``state_dict`` and ``meta``,
    which has the names of the classes if the file has them. The weights are converted to frdet's names and order if
    they are another project's detector of a known family. The layout is logged and returned under ``layout``.

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
    of_training = 'message_hub' in content and isinstance(content.get('state_dict'), dict)
    state = content['state_dict'] if of_training else unwrap(content, filename)
    kind = layout_of(content, state)
    layout = layout_in_words(state, kind)
    if of_training and kind not in ('mmdet2', 'mmdet3'):
        print_log(f'{filename}: {layout}', logger='current')
        return content
    if layout in ('layout detectron2', 'layout torchvision'):
        state = dict(convert_state_dict(state, name=filename))
    elif kind in ('mmdet2', 'mmdet3'):
        state = from_mmdet(state)
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
    state = checkpoint['state_dict']
    return f'{source} ({checkpoint.get("layout") or layout_in_words(state, recognise(state))})'


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
