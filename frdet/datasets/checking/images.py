"""Checking image files: whether they exist, and whether their content agrees with their records."""

import hashlib
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

from frdet.datasets.annotations import short
from frdet.datasets.checking import EXAMPLES, Findings
from frdet.datasets.locating import locate
from frdet.datasets.near_files import near_file
from frdet.datasets.transforms.loading import open_image, orientation, read_image
from frdet.errors import BrokenImageError, DataError, ImageSizeError
from frdet.progress import track

CHUNK = 16  # images handed to a process at once


class ImageFile(NamedTuple):
    """The path of an image, its name in messages, and the (width, height) in its record."""

    path: str
    name: str
    size: tuple[int, int]


def find_images(records: Sequence[dict[str, Any]], folder: str | Path, findings: Findings) -> list[ImageFile]:
    """The images of ``records`` that are on disk. The other ones are added to ``findings``."""
    found = []
    located = locate([record['file_name'] for record in records], folder)
    missing = set(located.missing)
    for record, file in zip(records, located.names, strict=True):
        path = Path(folder, file)
        name = f'{short(record["file_name"])} (id {record["id"]})'
        if file != record['file_name']:
            findings.add('file name written otherwise', f'{name}: {file}')
        if file not in missing:
            found.append(ImageFile(str(path), name, (record['width'], record['height'])))
        else:
            is_shown = 'missing image' not in findings or findings['missing image'].times < EXAMPLES
            near = near_file(str(path), str(folder)) if is_shown else None
            findings.add('missing image', f'{name}: {os.path.relpath(near, folder)} is there' if near else name)
    return found


def read_images(images: Sequence[ImageFile], workers: int, findings: Findings) -> None:
    """Read every image in ``workers`` processes, and add the results to ``findings``.

    Raises:
        DataError: the system killed one of the processes, because memory ran out or a decoder crashed.
    """
    pool = ProcessPoolExecutor(workers, mp_context=get_context('fork'), initializer=_end_with_parent)
    try:
        # Ctrl-C waits until the processes are started, because it would leave them behind, and never reaches them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            results = pool.map(inspect_image, images, chunksize=CHUNK)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for found in track(results, 'Reading images', total=len(images)):
            for kind, example in found:
                findings.add(kind, example)
    except BrokenProcessPool:
        raise DataError(
            'A process that reads images was killed: memory ran out, or a decoder crashed. Try --workers 1'
        ) from None
    finally:  # after Ctrl-C, too, waiting images are dropped and the processes end
        pool.shutdown(wait=True, cancel_futures=True)


class Group(NamedTuple):
    """The images of an annotation file, the splits that use it, and the findings in it."""

    splits: Sequence[str]
    images: Sequence[ImageFile]
    findings: Findings


def find_copies(groups: Sequence[Group], together: Findings, *, within: bool) -> None:
    """Find files with the same bytes, whatever their names are.

    Args:
        groups: training images are searched in the groups of other splits.
        together: a picture in two splits is added here.
        within: also search for copies inside each group, which may read most of its files.
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


def _end_with_parent() -> None:
    """End this process of the pool when its parent is killed. Otherwise it would wait for work forever."""

    def watch() -> None:
        if (parent := parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def inspect_image(image: ImageFile) -> list[tuple[str, str]]:
    """The findings in one image: pairs of kind and example."""
    found = []
    try:
        read_image(image.path, name=image.name, size=image.size[::-1])
    except ImageSizeError as error:
        found.append(('image of another size', str(error)))
    except BrokenImageError as error:
        return [('undecodable image', str(error))]
    return [*((kind, image.name) for kind in _peculiarities(image)), *found]


def _peculiarities(file: ImageFile) -> list[str]:
    """The kinds of a readable image that other readers may fail at. Pixels of an unexpected size are not decoded."""
    with open_image(file.path) as image:
        mode = image.mode
        is_kind = {
            'grey image': mode[0] in '1LI' and mode != 'LAB',
            'palette image': mode[0] == 'P',
            'CMYK image': mode == 'CMYK',
            'image with transparency': mode in ('LA', 'PA', 'RGBA', 'RGBa') or 'transparency' in image.info,
            # Pillow opens 16-bit colour as RGB, and names the depth only in the tiles.
            '16-bit image': mode[0] == 'I' or any(';16' in str(tile) for tile in image.tile),
        }
        if image.format == 'PNG' and 'exif' not in image.info and sorted(image.size) == sorted(file.size):
            image.load()  # its orientation may follow the pixels
        is_kind['image turned by EXIF'] = orientation(image) > 1
        return [kind for kind, holds in is_kind.items() if holds]
