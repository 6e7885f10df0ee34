"""Writing checkpoint files completely or not at all, and finding the newest intact checkpoint of a folder."""

import zipfile
import zlib
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from frdet.checkpoints.fit import warn
from frdet.errors import CheckpointError
from frdet.files import write_file


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


def newest_whole(work_dir: str | Path) -> str | None:
    """Return the checkpoint to resume from: the one in ``last_checkpoint``, or the newest other one if it is broken.

    Each broken checkpoint gives a warning. Without any checkpoint the result is None.

    Raises:
        CheckpointError: all checkpoints are broken.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    named = [Path(pointer.read_text().strip())] if pointer.is_file() else []
    # The work dir may have been moved or copied.
    is_elsewhere = bool(named) and named[0].parent.is_dir() and not Path(work_dir, named[0].name).is_file()
    folder = named[0].parent if is_elsewhere else Path(work_dir)
    named = [folder / path.name for path in named]
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
