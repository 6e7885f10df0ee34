"""Reading files of weights without running what is in them: a pickle is a program, and these come from anywhere."""

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

#: numpy's modules moved in version 2; files name them by the version that wrote them.
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
    """Python 3 writes bytes into old pickle protocols as a call of ``codecs.encode``; this one knows no other codec."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'bytes encoded as {encoding!r}')
    return text.encode('latin1')


_PICKLE_GLOBALS = {
    **_NUMPY_GLOBALS,
    ('_codecs', 'encode'): _encode,
    ('collections', 'OrderedDict'): collections.OrderedDict,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits numpy arrays, plain containers and nothing that could run code. Strings of Python 2 become str."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PICKLE_GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f'it names {module}.{name}, and only numpy arrays are admitted') from None


class _History(HistoryBuffer):
    """Stands for MMEngine's history, whose state also replaces functions of its class by what the file says."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state['_log_history'], state['_count_history'], state['max_length'])  # type: ignore[misc]


def _no_attribute(*args: Any) -> None:
    """Stands for ``getattr``, by which MMEngine's histories name those functions."""


def _torch_globals() -> list[Any]:
    """What is in checkpoints besides tensors and plain data: MMEngine's and MMDetection's log histories, numpy's arrays
    and scalars, and the arguments that torchvision's training script was called with, which only hold what is set.
    """
    dtypes = {type(np.dtype(kind)) for kind in '?bBhHiIlLqQefd'}
    named = [(value, '.'.join(key)) for key, value in _NUMPY_GLOBALS.items() if key[0] != 'numpy']
    named += [(_History, 'mmengine.logging.history_buffer.HistoryBuffer'), (_no_attribute, 'builtins.getattr')]
    return [argparse.Namespace, np.ndarray, np.dtype, *sorted(dtypes, key=str), *named]


def load_file(path_or_url: str | Path, map_location: Any = 'cpu') -> Any:
    """What a ``.pth``, ``.pt`` or ``.pkl`` file holds; no code in it is run.

    Args:
        path_or_url: a path or any address that ``resolve`` takes.
        map_location: as in ``torch.load``; a ``.pkl`` holds arrays and ignores it.

    Raises:
        CheckpointError: the file is missing, truncated, of another kind, or holds more than tensors, arrays and plain
            data.
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
    except Exception as error:  # a broken file makes unpicklers raise anything
        raise CheckpointError(_why(path, error)) from error


def _why(path: Path, error: Exception) -> str:
    reason = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch seeks beyond the end of a truncated file
        return f'Checkpoint {path} cannot be read: {error.strerror or reason}'
    refused = isinstance(error, pickle.UnpicklingError) and ('admitted' in reason or 'GLOBAL' in reason)
    if refused:
        culprit = next((line.strip() for line in reason.splitlines() if 'GLOBAL' in line or 'admitted' in line), reason)
        return (
            f'Checkpoint {path} is refused because it holds more than tensors and plain data: {culprit[:300]}\n'
            'Loading it could run code; save its state dict alone with torch.save'
        )
    first = reason.splitlines()[0][:200]
    return (
        f'Checkpoint {path} is unreadable, it may be truncated or of another kind ({first}): copy or download it again'
    )


def unwrap(content: Any, source: str | Path) -> dict[str, Any]:
    """The state dict in what a file holds: bare, or under ``state_dict``, ``model`` or ``blobs``.

    Raises:
        CheckpointError: there is none.
    """
    for key in ('state_dict', 'model', 'blobs'):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not any(isinstance(v, (np.ndarray, torch.Tensor)) for v in content.values()):
        keys = ', '.join(map(str, content)) if isinstance(content, dict) else ''
        raise CheckpointError(
            f'{source} holds a {type(content).__name__} {keys[:80]}: '
            'expected a dict of parameters, bare or under state_dict, model or blobs'
        )
    return {str(key).removeprefix('module.'): value for key, value in content.items()}
