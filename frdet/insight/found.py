"""Which objects each validation of a training found: ``ReportHook`` keeps this, and the report reads it.

V validations, M objects.
"""

import io
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from frdet.files import write_file
from frdet.insight.curves import f1_of_all
from frdet.insight.errors import Detected, Match, Objects, Results, match

FOUND = 'found.npz'


def found_objects(found: Detected, truth: Objects, matched: Match, *, score: float) -> np.ndarray:
    """(M,) bool, whether a detection that scores ``score`` or more found the object."""
    is_found = np.zeros(len(truth.image), dtype=bool)
    is_found[matched.truth[matched.right & (found.scores >= score)]] = True
    return is_found


def found_by(results: Results) -> np.ndarray:
    """(M,) bool, whether a validation found the object by a detection with at least the score where F1 is best."""
    truth, found = results.truth, results.found
    matched = match(found, truth, num_classes=len(results.classes))
    return found_objects(found, truth, matched, score=f1_of_all(found, truth, matched).threshold)


def keep(folder: Path, results: Results, *, step: int) -> None:
    """Add the objects that a validation found to the file in ``folder``.

    Args:
        step: of the validation in the loggers; a validation of the same step is replaced.
    """
    rows = {**_read(folder, results.truth), step: found_by(results)}
    content = io.BytesIO()
    bits = np.packbits(np.stack(list(rows.values())), axis=1)
    np.savez_compressed(content, steps=np.array(list(rows)), bits=bits, objects=_mark(results.truth))
    write_file(folder / FOUND, content.getvalue())


def history(folders: Sequence[Path], truth: Objects, steps: Collection[int]) -> np.ndarray:
    """(V, M) bool: which objects the validations found.

    Args:
        folders: of the pieces of a training, the oldest first; a later piece replaces a validation of the same step.
        truth: the objects; validations of other ones are left out, such as those before a correction of the boxes.
        steps: the validations that count; a resumed training may have taken back some that an earlier piece kept.
    """
    rows = {step: row for folder in folders for step, row in _read(folder, truth).items() if step in steps}
    return np.array(list(rows.values()), dtype=bool).reshape(-1, len(truth.image))


def _read(folder: Path, truth: Objects) -> dict[int, np.ndarray]:
    """The found objects by the step of the validation; empty if nothing was kept, or only of other objects."""
    try:
        with np.load(folder / FOUND, allow_pickle=False) as file:
            if file['objects'] != _mark(truth):
                return {}
            rows = np.unpackbits(file['bits'], axis=1, count=len(truth.image)).astype(bool)
            return dict(zip(file['steps'].tolist(), rows, strict=True))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return {}


def _mark(truth: Objects) -> int:
    """A number that differs if any object does."""
    return zlib.crc32(b''.join(column.tobytes() for column in truth))
