"""Resolving the address of weights to a file on this machine."""

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
    """Return the file of a path or an ``http(s)://``, ``detectron2://`` or ``torchvision://`` address; may download.

    ``detectron2://ImageNetPretrained/MSRA/R-50.pkl`` is a file of detectron2's model zoo. ``torchvision://resnet50`` is
    the first set of weights that torchvision has for this model, ``torchvision://resnet50.imagenet1k_v2`` another set.
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
            f'Cannot download {url} ({error}). Put a file of that name at {path}, '
            f'or train from scratch with {SCRATCH_CONFIG}'
        ) from error
    return path


def _check_hash(path: Path) -> None:
    """Raise DownloadError if the SHA-256 does not begin with the digits in the name, which torchvision's files have."""
    if named := re.search(r'-([0-9a-f]{8,})\.\w+$', path.name):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not digest.startswith(named[1]):
            raise DownloadError(f'its SHA-256 is {digest[:8]}..., the name says {named[1]}')
