"""Reading weights from a file or an address, without running code: a pickle is a program and comes from anywhere."""

import argparse
import collections
import errno
import fcntl
import hashlib
import pickle
import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from frdet.errors import CheckpointError
from frdet.files import DownloadError, cache_dir, fetch

DETECTRON2 = 'https://dl.fbaipublicfiles.com/detectron2/'
SCRATCH_CONFIG = 'configs/faster_rcnn/r50_fpn_1x_cocoval_scratch.py'
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


def resolve(path_or_url: str | Path) -> Path:
    """Return the file of a path or an ``http(s)://``, ``detectron2://`` or ``torchvision://`` address; may download.

    ``detectron2://ImageNetPretrained/MSRA/R-50.pkl`` is a file of detectron2's model zoo. ``torchvision://resnet50`` is
    the first set of weights that torchvision has for this model, ``torchvision://resnet50.imagenet1k_v2`` another set.
    Detectors have such addresses too: ``torchvision://fasterrcnn_resnet50_fpn_v2``,
    ``detectron2://COCO-Detection/faster_rcnn_R_50_FPN_3x/137849458/model_final_280758.pkl``.
    A file of this name in the cache folder is used without a download.

    Raises:
        CheckpointError: the address is unknown, or the download failed; the message names the file to provide instead.
    """
    text = str(path_or_url)
    scheme, separator, rest = text.partition('://')
    if not separator:
        return Path(text).expanduser()
    if scheme == 'detectron2':
        text = DETECTRON2 + rest
    elif scheme in ('torchvision', 'modelzoo'):
        text = torchvision_url(rest)
    elif scheme not in ('http', 'https'):
        raise CheckpointError(
            f'{text}: addresses of weights begin with http://, https://, detectron2:// or torchvision://; '
            'download the file yourself and give its path'
        )
    return _cached(text)


def torchvision_url(name: str) -> str:
    """Return the URL of torchvision's weights ``model`` or ``model.weights``, such as ``resnet50.imagenet1k_v2``."""
    from torchvision.models import get_model_weights

    model, _, version = name.partition('.')
    try:
        weights = list(get_model_weights(model))
    except ValueError:
        raise CheckpointError(f'torchvision://{name}: torchvision has no model {model!r}') from None
    for w in weights:
        if not version or w.name.lower() == version.lower():
            return w.url
    raise CheckpointError(f'torchvision://{name}: {model} has {", ".join(w.name.lower() for w in weights)}')


def _cached(url: str) -> Path:
    path = cache_dir() / Path(unquote(urlparse(url).path)).name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Processes that start together wait for the download of the first process.
        with open(path.with_name(f'.{path.name}.lock'), 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                with tempfile.TemporaryDirectory(dir=path.parent, prefix='.') as folder:
                    part = Path(folder, path.name)
                    fetch(url, part)
                    _check_hash(part)
                    part.replace(path)
    except (OSError, DownloadError) as error:
        raise CheckpointError(
            f'Cannot download {url} ({getattr(error, "reason", error)}).\nWithout network, put that file at {path} '
            f'yourself; or train from random weights as {SCRATCH_CONFIG} does: load_from=None, init_cfg=None, norms GN'
        ) from error
    return path


def _check_hash(path: Path) -> None:
    """Raise DownloadError if the SHA-256 does not begin with the digits in the name, which torchvision's files have."""
    if named := re.search(r'-([0-9a-f]{8,})\.\w+$', path.name):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not digest.startswith(named[1]):
            raise DownloadError(f'its SHA-256 is {digest[:8]}..., the name says {named[1]}')
