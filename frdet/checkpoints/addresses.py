"""Addresses of weights -> files on this machine."""

import fcntl
import hashlib
import os
import re
import tempfile
import urllib.request
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote, urlparse

from frdet.errors import CheckpointError
from frdet.progress import download_bar

DETECTRON2 = 'https://dl.fbaipublicfiles.com/detectron2/'
SCRATCH_CONFIG = 'configs/faster_rcnn/r50_fpn_1x_cocoval_scratch.py'
CHUNK = 1 << 20
TIMEOUT = 30  # seconds without an answer


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
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = error.reason if isinstance(error, URLError) else error
        raise CheckpointError(
            f'Cannot download {url} ({reason}). Put a file of that name at {path}, '
            f'or train from scratch with {SCRATCH_CONFIG}'
        ) from error
    return path


def _download(url: str, path: Path) -> None:
    """Write ``url`` to ``path``, which appears only when it is whole.

    Raises:
        OSError: no connection, or the transfer ended early.
        ValueError: the content does not fit the hash in the name.
    """
    digest = hashlib.sha256()
    request = urllib.request.Request(url, headers={'User-Agent': 'frdet'})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        total = int(response.headers.get('Content-Length') or 0)
        part = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f'.{path.name}.', suffix='.part', delete=False)  # noqa: SIM115
        try:
            with part, download_bar() as bar:
                task = bar.add_task(path.name, total=total or None)
                while chunk := response.read(CHUNK):
                    part.write(chunk)
                    digest.update(chunk)
                    bar.advance(task, len(chunk))
                size = part.tell()
            if total and size != total:
                raise OSError(f'the transfer ended after {size} of {total} bytes')
            # torchvision's names carry the beginning of the content's SHA-256.
            named = re.search(r'-([0-9a-f]{8,})\.\w+$', path.name)
            if named and not digest.hexdigest().startswith(named[1]):
                raise ValueError(f'its SHA-256 is {digest.hexdigest()[:8]}..., the name says {named[1]}')
            os.chmod(part.name, 0o644)
            os.replace(part.name, path)
        finally:
            Path(part.name).unlink(missing_ok=True)
