"""Fetching COCO 2017 into COCO's layout: resumed where it stopped, checked by size, placed whole or not at all."""

import shutil
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from frdet.errors import DataError
from frdet.progress import download_bar, track

BASE_URL = 'http://images.cocodataset.org'
BLOCK = 1 << 20  # bytes read at once
ATTEMPTS = 5  # connections made for one file while none of them brings anything
TIMEOUT = 30.0  # seconds without a byte


class Archive(NamedTuple):
    """A zip file of the data set.

    Attributes:
        path: on the server.
        size: bytes.
        folder: what it unpacks to.
        members: prefix of the members that are wanted; they are unpacked without their folder.
        files: how many of them there are.
    """

    path: str
    size: int
    folder: str
    members: str
    files: int


ANNOTATIONS = Archive('annotations/annotations_trainval2017.zip', 252907541, 'annotations', 'annotations/instances_', 2)
SPLITS = {
    'train': Archive('zips/train2017.zip', 19336861798, 'train2017', 'train2017/', 118287),
    'val': Archive('zips/val2017.zip', 815585330, 'val2017', 'val2017/', 5000),
}


def download_coco(
    root: str | Path,
    *,
    splits: Sequence[str] = ('train', 'val'),
    base_url: str = BASE_URL,
    keep: bool = False,
    archives: Sequence[Archive] | None = None,
) -> Path:
    """Download and unpack COCO 2017; what is there already is skipped.

    Args:
        root: folder to fill: annotations/, train2017/, val2017/.
        splits: of ``train`` and ``val``; the annotations of both always come.
        base_url: of the server, or of a mirror of the same files.
        keep: leave the zip files in ``root``.
        archives: other files than COCO's.

    Returns:
        ``root``.

    Raises:
        DataError: no connection, a file of another size than COCO's, a damaged zip file, a full disk. What was fetched
            stays, and the same call goes on from there.
    """
    root = Path(root)
    wanted = [ANNOTATIONS, *(SPLITS[split] for split in splits)] if archives is None else archives
    try:
        root.mkdir(parents=True, exist_ok=True)
        missing = [archive for archive in wanted if not is_complete(root, archive)]
        _check_space(root, missing)
        for archive in missing:
            target = root / Path(archive.path).name
            fetch(f'{base_url.rstrip("/")}/{archive.path}', target, archive.size)
            unpack(target, root, archive)
            if not keep:
                target.unlink()
    except OSError as error:
        raise DataError(f'COCO cannot be written to {root}: {error}') from None
    return root


def is_complete(root: Path, archive: Archive) -> bool:
    """Whether an archive's folder is there with all its files; False where it is absent.

    Raises:
        DataError: it is there with fewer files.
    """
    folder = root / archive.folder
    if not folder.is_dir():
        return False
    prefix = archive.members.rpartition('/')[2]
    count = sum(path.name.startswith(prefix) and not path.name.startswith('.') for path in folder.iterdir())
    if count < archive.files:
        raise DataError(f'{folder} holds {count} of {archive.files} files: delete or move it, and run this again')
    return True


def fetch(url: str, target: Path, size: int) -> None:
    """Download ``url`` to ``target``, ``size`` bytes; a part that is there is continued.

    Raises:
        DataError: no connection, or another size.
    """
    if target.is_file() and target.stat().st_size == size:
        return
    part = target.with_name(target.name + '.part')
    with download_bar() as bar:
        task = bar.add_task(target.name, total=size, completed=_size(part))
        failures, most = 0, _size(part)
        while _size(part) != size:
            try:
                _receive(url, part, size, lambda done: bar.update(task, completed=done))
                reason = f'the connection closed after {_size(part)} bytes'
            except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError, ValueError) as error:
                reason = str(getattr(error, 'reason', None) or error)
                if isinstance(error, ValueError) or (isinstance(error, urllib.error.HTTPError) and error.code < 500):
                    failures = ATTEMPTS  # asking again would be answered the same
            # A server without ranges begins anew each time: only more than ever before is progress.
            failures, most = (1, _size(part)) if _size(part) > most else (failures + 1, most)
            if _size(part) == size:
                break
            if failures >= ATTEMPTS:
                raise DataError(
                    f'{url} cannot be downloaded ({reason}); {_size(part)} of {size} bytes are in {part}.\n'
                    'Check the connection and run this again, which goes on from there; or --base-url names a mirror'
                )
            time.sleep(min(2 ** (failures - 1), 8) * 0.25)
    part.replace(target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _receive(url: str, part: Path, size: int, report: Any) -> None:
    """Append to ``part`` what one connection gives."""
    start = _size(part)
    if start > size:
        part.unlink()
        start = 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={start}-'} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        resumed = response.status == 206
        start = start if resumed else 0
        length = response.headers.get('Content-Length')
        if length is not None and start + int(length) != size:
            raise DataError(
                f"{url} is {start + int(length)} bytes, expected {size}: it is not COCO's file. "
                'Check --base-url, or that no proxy answers in its place'
            )
        with open(part, 'ab' if resumed else 'wb') as file:
            while block := response.read(BLOCK):
                file.write(block)
                start += len(block)
                report(start)


def unpack(path: Path, root: Path, archive: Archive) -> None:
    """Unpack the wanted members of a zip file; the folder appears when all of them are there.

    Raises:
        DataError: the file is no whole zip file; it is deleted, for it would not mend itself.
    """
    try:
        with zipfile.ZipFile(path) as file, tempfile.TemporaryDirectory(dir=root, prefix='.unpacking-') as folder:
            names = [n for n in file.namelist() if n.startswith(archive.members) and not n.endswith('/')]
            if len(names) != archive.files:
                raise zipfile.BadZipFile(f'{len(names)} files in {archive.members}, expected {archive.files}')
            unfinished = Path(folder, archive.folder)
            unfinished.mkdir()
            for name in track(names, f'Unpacking {path.name}'):
                with file.open(name) as source, open(unfinished / Path(name).name, 'wb') as target:
                    shutil.copyfileobj(source, target)
            unfinished.rename(root / archive.folder)
    except zipfile.BadZipFile as error:
        path.unlink()
        raise DataError(f'{path} is damaged ({error}) and was deleted: run this again to fetch it anew') from None


def _check_space(root: Path, archives: Sequence[Archive]) -> None:
    """Refuse before hours of waiting: an image archive unpacks to its own size, and one is held at a time."""
    present = sum(_size(root / (Path(a.path).name + end)) for a in archives for end in ('', '.part'))
    needed = sum(archive.size for archive in archives) + max((a.size for a in archives), default=0) - present
    free = shutil.disk_usage(root).free
    if free < needed:
        raise DataError(f'{root} has {free / 1e9:.1f} GB free, COCO needs {needed / 1e9:.1f} GB: choose another --root')
