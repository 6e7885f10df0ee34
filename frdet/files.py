"""Writing and downloading files: a file gets its name only when its whole content is on the disk."""

import contextlib
import errno
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from frdet.errors import UserError
from frdet.progress import download_bar

#: End of a file's name while it is written: ``.<name>.<process><UNFINISHED>``.
UNFINISHED = '.unfinished'
BLOCK = 1 << 20  # bytes read at once
ATTEMPTS = 5  # connections in a row that bring nothing
TIMEOUT = 30.0  # seconds without a byte


class DownloadError(UserError):
    """A file cannot be downloaded, or has another size or content than expected; ``reason`` is why, in a few words."""

    def __init__(self, message: str, reason: str = ''):
        super().__init__(message)
        self.reason = reason or message


def cache_dir() -> Path:
    """The folder of what can be downloaded or computed again: ``$FRDET_CACHE``, else ``~/.cache/frdet``."""
    return Path(os.environ.get('FRDET_CACHE') or '~/.cache/frdet').expanduser()


def write_file(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file, or replace it. If this fails, the former file is kept.

    Raises:
        OSError: the disk is full, or the folder is missing or write-protected.
    """
    path = Path(path)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}{UNFINISHED}')
    try:
        with open(unfinished, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def _sync_folder(folder: Path) -> None:
    """Without this, the new name may be lost in a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def fetch(url: str, target: Path, size: int | None = None) -> None:
    """Download ``url`` to ``target``. An unfinished ``<target>.part`` is continued, and is kept if this fails.

    Args:
        url: the address of the file.
        target: path of the file. An existing file of this size is kept.
        size: number of bytes, if it is known.

    Raises:
        DownloadError: there is no connection, or the file has another size.
    """
    if size is not None and size_of(target) == size:
        return
    part = target.with_name(target.name + '.part')
    with download_bar() as bar:
        task = bar.add_task(target.name, total=size, completed=size_of(part))
        failures, most = 0, size_of(part)
        while size is None or size_of(part) != size:
            try:
                size = _receive(url, part, size, lambda done, total: bar.update(task, completed=done, total=total))
                reason = f'the connection closed after {size_of(part)} bytes'
            except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError, ValueError) as error:
                reason = str(getattr(error, 'reason', None) or error)
                if isinstance(error, ValueError) or (isinstance(error, urllib.error.HTTPError) and error.code < 500):
                    failures = ATTEMPTS  # the answer would be the same again
            # A server without ranges starts from the beginning each time: progress is more bytes than ever before.
            failures, most = (1, size_of(part)) if size_of(part) > most else (failures + 1, most)
            if size_of(part) == size:
                break
            if failures >= ATTEMPTS:
                have = f'{size_of(part)} of {"unknown" if size is None else size} bytes are in {part}'
                raise DownloadError(f'{url} cannot be downloaded ({reason}); {have}', reason)
            time.sleep(min(2 ** (failures - 1), 8) * 0.25)
    part.replace(target)


def size_of(path: Path) -> int:
    """Number of bytes of a file; 0 without a file."""
    return path.stat().st_size if path.is_file() else 0


def _receive(url: str, part: Path, size: int | None, report: Callable[[int, int | None], None]) -> int:
    """Append the bytes of one connection to ``part``. Returns the size of the whole file."""
    start = size_of(part)
    if size is not None and start > size:
        part.unlink()
        start = 0
    headers = {'User-Agent': 'frdet', **({'Range': f'bytes={start}-'} if start else {})}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        resumed = response.status == 206
        start = start if resumed else 0
        length = response.headers.get('Content-Length')
        total = size if length is None else start + int(length)
        if size not in (None, total):
            raise DownloadError(f'{url} is {total} bytes, expected {size}')
        with open(part, 'ab' if resumed else 'wb') as file:
            while block := response.read(BLOCK):
                file.write(block)
                start += len(block)
                report(start, total)
    return start if total is None else total
