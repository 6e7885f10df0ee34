"""Checking image files: that they are there, and, by reading each, that they are what their records say."""

import hashlib
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

from frdet.datasets.annotations import short
from frdet.datasets.checking.findings import EXAMPLES, Findings
from frdet.datasets.near_files import near_file
from frdet.datasets.transforms.decoding import open_image
from frdet.datasets.transforms.loading import read_image
from frdet.datasets.transforms.orientation import orientation
from frdet.errors import BrokenImageError, DataError, ImageSizeError
from frdet.progress import track

CHUNK = 16  # images handed to a process at once


class ImageFile(NamedTuple):
    """A file, what to call it, and the (width, height) that its record states."""

    path: str
    name: str
    size: tuple[int, int]


def find_images(records: Sequence[dict[str, Any]], folder: str | Path, findings: Findings) -> list[ImageFile]:
    """The images of ``records`` that are on disk; the others are added to ``findings``."""
    found = []
    for record in records:
        path = Path(folder, record['file_name'])
        name = f'{short(record["file_name"])} (id {record["id"]})'
        if path.is_file():
            found.append(ImageFile(str(path), name, (record['width'], record['height'])))
        else:
            found_before = findings.get('missing image')
            is_shown = found_before is None or found_before.times < EXAMPLES
            near = near_file(str(path), str(folder)) if is_shown else None
            findings.add('missing image', f'{name}: {os.path.relpath(near, folder)} is there' if near else name)
    return found


def read_images(images: Sequence[ImageFile], workers: int, findings: Findings) -> None:
    """Read every image, in ``workers`` processes, and add what is found to ``findings``.

    Raises:
        DataError: the system ended one of the processes, for want of memory or because a decoder crashed.
    """
    pool = ProcessPoolExecutor(workers, mp_context=get_context('fork'), initializer=_end_with_parent)
    try:
        with _interrupts_held():  # one amid the start of the processes would leave them behind
            results = pool.map(inspect_image, images, chunksize=CHUNK)
        for found in track(results, 'Reading images', total=len(images)):
            for kind, example in found:
                findings.add(kind, example)
    except BrokenProcessPool:
        raise DataError(
            'A process that read images was killed, by the system for want of memory or by a crash in a decoder: '
            'try --workers 1'
        ) from None
    finally:  # after Ctrl-C, too: what has not begun is dropped, the processes end
        pool.shutdown(wait=True, cancel_futures=True)


class Group(NamedTuple):
    """The images of an annotation file, the splits that it is for, and what was found in it."""

    splits: Sequence[str]
    images: Sequence[ImageFile]
    findings: Findings


def find_copies(groups: Sequence[Group], together: Findings, *, within: bool) -> None:
    """Find pictures that are there twice: files of the same bytes, whatever they are called.

    Args:
        groups: training images are looked for in the groups of other splits.
        together: a picture in two splits is added here.
        within: look for copies in each group, too, which may mean to read most of its files.
    """
    by_size: dict[int, list[tuple[Group, ImageFile]]] = defaultdict(list)
    for group in groups:
        if 'train' in group.splits and len(group.splits) > 1 and group.images:
            together.add('image in two splits', f'all {len(group.images)} of {" and ".join(group.splits)}')
        for image in group.images:
            by_size[os.stat(image.path).st_size].append((group, image))
    for same in by_size.values():
        if len(same) > 1 and (within or len({id(group) for group, _ in same}) > 1):
            by_content: dict[bytes, list[tuple[Group, ImageFile]]] = defaultdict(list)
            for group, image in same:
                by_content[hashlib.blake2b(Path(image.path).read_bytes()).digest()].append((group, image))
            for copies in by_content.values():
                _add_copies(copies, together, within)


def _add_copies(copies: list[tuple[Group, ImageFile]], together: Findings, within: bool) -> None:
    first: dict[int, tuple[Group, ImageFile]] = {}
    for group, image in copies:
        _, before = first.setdefault(id(group), (group, image))
        if within and os.path.realpath(image.path) != os.path.realpath(before.path):
            group.findings.add('repeated image', f'{image.name} is the same picture as {before.name}')
    trained = [image for group, image in first.values() if 'train' in group.splits]
    for group, image in first.values():
        if trained and 'train' not in group.splits:
            splits = ' and '.join(group.splits)
            together.add('image in two splits', f'{image.name} of {splits} is {trained[0].name} of train')


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the context, and never reaches processes that are started in it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_with_parent() -> None:
    """A process of the pool would wait for work for ever where the one that started it was killed."""

    def watch() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def inspect_image(image: ImageFile) -> list[tuple[str, str]]:
    """What is to be said of one image: pairs of kind and example."""
    found = []
    try:
        read_image(image.path, name=image.name, size=image.size[::-1])
    except ImageSizeError as error:
        found.append(('image of another size', str(error)))
    except BrokenImageError as error:
        return [('undecodable image', str(error))]
    return [*((kind, image.name) for kind in _peculiarities(image)), *found]


def _peculiarities(file: ImageFile) -> list[str]:
    """Kinds of images that other readers stumble over, of one that can be read; an unexpected size is not decoded."""
    with open_image(file.path) as image:
        mode = image.mode
        is_kind = {
            'grey image': mode[0] in '1LI' and mode != 'LAB',
            'palette image': mode[0] == 'P',
            'CMYK image': mode == 'CMYK',
            'image with transparency': mode in ('LA', 'PA', 'RGBA', 'RGBa') or 'transparency' in image.info,
            # Pillow opens 16-bit colour as RGB, and names what it decodes from only in the tiles.
            '16-bit image': mode[0] == 'I' or any(';16' in str(tile) for tile in image.tile),
        }
        if image.format == 'PNG' and 'exif' not in image.info and sorted(image.size) == sorted(file.size):
            image.load()  # its orientation may stand behind the pixels
        is_kind['image turned by EXIF'] = orientation(image) > 1
        return [kind for kind, holds in is_kind.items() if holds]
