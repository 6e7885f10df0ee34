"""Addresses of weights -> files on this machine."""

import fcntl
import hashlib
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlparse

from frdet.errors import CheckpointError
from frdet.files import DownloadError, fetch

DETECTRON2 = 'https://dl.fbaipublicfiles.com/detectron2/'
SCRATCH_CONFIG = 'configs/faster_rcnn/r50_fpn_1x_cocoval_scratch.py'


def cache_dir() -> Path:
    """The folder of downloaded weights: ``$FRDET_CACHE``, else ``~/.cache/frdet``."""
    return Path(os.environ.get('FRDET_CACHE') or '~/.cache/frdet').expanduser()


def resolve(path_or_url: str | Path) -> Path:
    """The file behind a path, ``http(s)://``, ``detectron2://`` or ``torchvision://`` address, downloaded if needed.

    ``detectron2://ImageNetPretrained/MSRA/R-50.pkl`` is a file of detectron2's model zoo. ``torchvision://resnet50`` is
    the first set of weights torchvision has of that model, ``torchvision://resnet50.imagenet1k_v2`` another one. A file
    of the same name in the cache folder is taken as it is.

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
            'download other ones yourself and give the path'
        )
    return _cached(text)


def torchvision_url(name: str) -> str:
    """URL of torchvision's weights ``model`` or ``model.weights``, such as ``resnet50.imagenet1k_v2``."""
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
        # Processes started together wait for the first one's download.
        with open(path.with_name(f'.{path.name}.lock'), 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file():
                _download(url, path)
    except (OSError, DownloadError) as error:
        raise CheckpointError(
            f'Cannot download {url} ({error}). Put a file of that name at {path}, '
            f'or train from scratch with {SCRATCH_CONFIG}'
        ) from error
    return path


def _download(url: str, path: Path) -> None:
    """Write ``url`` to ``path``, which appears only when it is whole.

    Raises:
        DownloadError: no connection, or the content does not fit the hash in the name.
        OSError: the folder cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.') as folder:
        part = Path(folder, path.name)
        fetch(url, part)
        # torchvision's names carry the beginning of the content's SHA-256.
        if named := re.search(r'-([0-9a-f]{8,})\.\w+$', path.name):
            digest = hashlib.sha256(part.read_bytes()).hexdigest()
            if not digest.startswith(named[1]):
                raise DownloadError(f'its SHA-256 is {digest[:8]}..., the name says {named[1]}')
        part.replace(path)
