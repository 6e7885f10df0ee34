"""Checkpoint files that are whole or not there at all, and the newest whole one of a folder."""

import logging
import zipfile
import zlib
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from frdet.errors import CheckpointError
from frdet.files import write_file


def write_whole(path: str | Path, content: bytes) -> None:
    """``frdet.files.write_file`` with words for a checkpoint.

    Raises:
        CheckpointError: the disk is full, or the folder is gone or not to be written; an earlier file is kept.
    """
    path = Path(path)
    try:
        write_file(path, content)
    except OSError as error:
        raise CheckpointError(
            f'{path.name} could not be saved into {path.parent}: {error.strerror or error}. Checkpoints saved before '
            'are whole.\nMake room or mend the folder, then go on with --resume'
        ) from error


class WholeFileBackend(LocalBackend):
    """MMEngine's local files, written by ``write_whole`` into folders that are there."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write_whole(filepath, obj)


WHOLE = 'frdet.whole'
register_backend(WHOLE, WholeFileBackend, force=True)


def check_whole(path: str | Path) -> None:
    """Compare every part of a checkpoint with the checksum beside it, which ``torch.load`` does not.

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
    """The checkpoint to resume from: what ``last_checkpoint`` names, or the newest other one where that is broken.

    Every broken one is warned about. None where no checkpoint was saved.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    named = [Path(pointer.read_text().strip())] if pointer.is_file() else []
    # The work folder may have been moved or copied.
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
            print_log(str(error), logger='current', level=logging.WARNING)
        else:
            if broken:
                print_log(f'Resuming from {path} instead', logger='current', level=logging.WARNING)
            return str(path)
    if broken:
        raise CheckpointError(
            f'No checkpoint in {folder} is whole: {", ".join(broken)}. Train anew without --resume, or give another '
            'checkpoint with --resume PATH'
        )
    return None
