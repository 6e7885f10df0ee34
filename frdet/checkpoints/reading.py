"""Reading files of weights without running code: a pickle is a program, and the files come from anywhere."""

import argparse
import collections
import errno
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from frdet.checkpoints.addresses import resolve
from frdet.errors import CheckpointError

#: numpy 2 renamed its modules; a file has the names of the version that wrote it.
_NUMPY_CORES = ('numpy.core', 'numpy._core')
_NUMPY_PARTS = (
    ('multiarray', '_reconstruct', np.zeros(0).__reduce__()[0]),
    ('multiarray', 'scalar', np.float32(0).__reduce__()[0]),
    ('numeric', '_frombuffer', np.zeros(1).__reduce_ex__(5)[0]),
)
_NUMPY_GLOBALS = {
    **{(f'{core}.{module}', name): value for core in _NUMPY_CORES for module, name, value in _NUMPY_PARTS},
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
}


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """Stands for ``codecs.encode``, which Python 3 calls for bytes in old pickle protocols; knows latin1 only."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'bytes encoded as {encoding!r}')
    return text.encode('latin1')


_PICKLE_GLOBALS = {
    **_NUMPY_GLOBALS,
    ('_codecs', 'encode'): _encode,
    ('collections', 'OrderedDict'): collections.OrderedDict,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits numpy arrays and plain containers, but nothing that could run code. Strings of Python 2 become str."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PICKLE_GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f'it names {module}.{name}, and only numpy arrays are admitted') from None


class _History(HistoryBuffer):
    """Stands for MMEngine's history, whose own ``__setstate__`` also takes functions from the file."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state['_log_history'], state['_count_history'], state['max_length'])  # type: ignore[misc]


def _no_attribute(*args: Any) -> None:
    """Stands for ``getattr``, by which the file of a MMEngine history names these functions."""


def _torch_globals() -> list[Any]:
    """Return the safe types in checkpoints besides tensors and plain data.

    They are MMEngine's log histories, numpy's arrays and scalars, and the arguments of torchvision's training script.
    """
    dtypes = {type(np.dtype(kind)) for kind in '?bBhHiIlLqQefd'}
    named = [(value, '.'.join(key)) for key, value in _NUMPY_GLOBALS.items() if key[0] != 'numpy']
    named += [(_History, 'mmengine.logging.history_buffer.HistoryBuffer'), (_no_attribute, 'builtins.getattr')]
    return [argparse.Namespace, np.ndarray, np.dtype, *sorted(dtypes, key=str), *named]


def load_file(path_or_url: str | Path, map_location: Any = 'cpu') -> Any:
    """Return the content of a ``.pth``, ``.pt`` or ``.pkl`` file, or of an address, without running any code in it.

    ``map_location`` is as in ``torch.load``; a ``.pkl``, which holds arrays, ignores it.

    Raises:
        CheckpointError: the file is missing, broken, or holds more than tensors, arrays and plain data.
    """
    path = resolve(path_or_url)
    if not path.is_file():
        found = 'a folder' if path.is_dir() else 'no such file'
        raise CheckpointError(f'Checkpoint {path}: {found}. Give the path of a .pth or .pkl file')
    try:
        if path.suffix in ('.pkl', '.pickle'):
            with open(path, 'rb') as file:
                return _ArrayUnpickler(file, encoding='latin1').load()
        with torch.serialization.safe_globals(_torch_globals()):
            return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # for a broken file unpicklers raise all kinds of errors
        raise CheckpointError(_why(path, error)) from error


def _why(path: Path, error: Exception) -> str:
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch seeks beyond the end of a truncated file
        return f'Checkpoint {path} cannot be read: {error.strerror or reason}'
    culprits = [line.strip() for line in reason.splitlines() if 'GLOBAL' in line or 'admitted' in line]
    if culprits and isinstance(error, pickle.UnpicklingError):
        return (
            f'Checkpoint {path} is refused because it holds more than tensors and plain data: {culprits[0][:300]}\n'
            'Loading it could run code; save its state dict alone with torch.save'
        )
    first = reason.splitlines()[0][:200]
    return f'Checkpoint {path} is unreadable, it may be truncated or no checkpoint ({first}): copy or download it again'


def unwrap(content: Any, source: str | Path) -> dict[str, Any]:
    """Return the state dict in a file: its content, or ``state_dict``, ``model`` or ``blobs`` in the content.

    Raises:
        CheckpointError: the content has no state dict.
    """
    for key in ('state_dict', 'model', 'blobs'):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not any(isinstance(v, (np.ndarray, torch.Tensor)) for v in content.values()):
        keys = ', '.join(map(str, content)) if isinstance(content, dict) else ''
        raise CheckpointError(
            f'{source} holds a {type(content).__name__} {keys[:80]}: '
            'expected a dict of parameters, or one under state_dict, model or blobs'
        )
    return {str(key).removeprefix('module.'): value for key, value in content.items()}
