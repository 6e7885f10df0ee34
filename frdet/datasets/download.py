"""Downloading COCO 2017 into COCO's layout. It resumes, checks sizes, and a folder appears when it is complete."""

import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from frdet.errors import DataError
from frdet.files import DownloadError, fetch, size_of
from frdet.progress import track

BASE_URL = 'http://images.cocodataset.org'


class Archive(NamedTuple):
    """A zip file of the data set.

    Attributes:
        path: its path on the server.
        size: bytes.
        folder: the folder that it unpacks to.
        members: prefix of the wanted members, which begins with the folder.
        files: number of the wanted members.
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
    """Download and unpack COCO 2017. Complete folders are skipped.

    Args:
        root: folder to fill: annotations/, train2017/, val2017/.
        splits: ``train``, ``val`` or both. The annotations of both are always downloaded.
        base_url: address of the server, or of a mirror of the same files.
        keep: leave the zip files in ``root``.
        archives: files to download instead of COCO's.

    Returns:
        ``root``.

    Raises:
        DataError: no connection, a wrong file size, a damaged zip file or a full disk. The same call continues the
            download.
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
    except DownloadError as error:
        raise DataError(
            f'{error}.\nCheck the connection and the proxy, and run this again to continue; or give a mirror of '
            "COCO's files with --base-url"
        ) from None
    except OSError as error:
        raise DataError(f'COCO cannot be written to {root}: {error}') from None
    return root


def is_complete(root: Path, archive: Archive) -> bool:
    """Whether the folder of an archive exists and has all its files.

    Raises:
        DataError: the folder has fewer files.
    """
    folder = root / archive.folder
    if not folder.is_dir():
        return False
    prefix = archive.members.rpartition('/')[2]
    count = sum(path.name.startswith(prefix) and not path.name.startswith('.') for path in folder.iterdir())
    if count < archive.files:
        raise DataError(f'{folder} holds {count} of {archive.files} files: delete or move it, and run this again')
    return True


def unpack(path: Path, root: Path, archive: Archive) -> None:
    """Unpack the wanted members of a zip file. The folder appears when it has all of them.

    Raises:
        DataError: the zip file is damaged. It is deleted, so that the next call downloads it again.
    """
    try:
        with zipfile.ZipFile(path) as file, tempfile.TemporaryDirectory(dir=root, prefix='.unpacking-') as folder:
            names = [n for n in file.namelist() if n.startswith(archive.members) and not n.endswith('/')]
            if len(names) != archive.files:
                raise zipfile.BadZipFile(f'{len(names)} files in {archive.members}, expected {archive.files}')
            for name in track(names, f'Unpacking {path.name}'):
                file.extract(name, folder)
            Path(folder, archive.folder).rename(root / archive.folder)
    except zipfile.BadZipFile as error:
        path.unlink()
        raise DataError(f'{path} is damaged ({error}) and was deleted: run this again to download it') from None


def _check_space(root: Path, archives: Sequence[Archive]) -> None:
    """Refuse a full disk before hours of waiting. Archives unpack to their size, and one is held at a time."""
    present = sum(size_of(root / (Path(a.path).name + end)) for a in archives for end in ('', '.part'))
    needed = sum(archive.size for archive in archives) + max((a.size for a in archives), default=0) - present
    free = shutil.disk_usage(root).free
    if free < needed:
        raise DataError(f'{root} has {free / 1e9:.1f} GB free, COCO needs {needed / 1e9:.1f} GB: choose another --root')
