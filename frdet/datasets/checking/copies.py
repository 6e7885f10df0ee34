"""Finding pictures that are in the data more than once: files with the same bytes, and near-duplicates."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from frdet.datasets.checking import Findings, Place
from frdet.datasets.checking.images import ImageFile
from frdet.datasets.near_duplicates import BITS, Codes, codes_of, near_pairs


class Group(NamedTuple):
    """The images that splits use together, their folder, and the findings in their annotations."""

    splits: Sequence[str]
    images: Sequence[ImageFile]
    folder: str
    findings: Findings

    @property
    def is_trained(self) -> bool:
        return 'train' in self.splits

    @property
    def name(self) -> str:
        return ' and '.join(self.splits)


def find_copies(groups: Sequence[Group], together: Findings, *, within: bool) -> set[str]:
    """Find files with the same bytes, whatever their names are.

    Args:
        groups: training images are searched in the groups of other splits.
        together: a picture in two splits is added here.
        within: also search for copies inside each group, which may read most of its files.

    Returns:
        The paths of all files that were found.
    """
    by_size: dict[int, list[tuple[Group, ImageFile]]] = defaultdict(list)
    for group in groups:
        if group.is_trained and len(group.splits) > 1 and group.images:
            together.add('image in two splits', f'all {len(group.images)} of {group.name}')
        for image in group.images if within or len(groups) > 1 else ():
            by_size[os.stat(image.path).st_size].append((group, image))
    found: set[str] = set()
    for same in by_size.values():
        if len(same) > 1 and (within or len({id(group) for group, _ in same}) > 1):
            by_content: dict[bytes, list[tuple[Group, ImageFile]]] = defaultdict(list)
            for group, image in same:
                by_content[hashlib.blake2b(Path(image.path).read_bytes()).digest()].append((group, image))
            for copies in by_content.values():
                _add_copies(copies, together, within)
                found.update(image.path for _, image in copies if len(copies) > 1)
    return found


def _add_copies(copies: list[tuple[Group, ImageFile]], together: Findings, within: bool) -> None:
    first: dict[int, tuple[Group, ImageFile]] = {}
    for group, image in copies:
        _, before = first.setdefault(id(group), (group, image))
        if within and os.path.realpath(image.path) != os.path.realpath(before.path):
            places = Place(image.path), Place(before.path)
            group.findings.add('repeated image', f'{image.name} is the same picture as {before.name}', *places)
    trained = [image for group, image in first.values() if group.is_trained]
    for group, image in first.values():
        if trained and not group.is_trained:
            example = f'{image.name} of {group.name} is {trained[0].name} of train'
            together.add('image in two splits', example, Place(image.path), Place(trained[0].path))


def find_near_duplicates(groups: Sequence[Group], together: Findings, copies: set[str]) -> None:
    """Find pictures that look alike, one of them in training and one in another split, or both in one group.

    Args:
        groups: their images, which are read.
        together: a picture that has a near-duplicate in training is added here.
        copies: paths of the files that ``find_copies`` found. Two of them are not compared.
    """
    images, owner, codes = _coded(groups)
    is_copy = np.array([image.path in copies for image in images], dtype=bool)
    trained = np.array([group.is_trained for group in groups], dtype=bool)
    across, inside = _Nearest(len(images)), _Nearest(len(images))
    for first, second, bits in near_pairs(codes):
        kept = ~(is_copy[first] & is_copy[second])
        first, second, bits = first[kept], second[kept], bits[kept]
        same = owner[first] == owner[second]
        inside.update(second[same], first[same], bits[same])
        for one, other in ((first, second), (second, first)):
            leak = trained[owner[other]] & ~trained[owner[one]]
            across.update(one[leak], other[leak], bits[leak])
    for pair in across:
        image, other = images[pair.one], images[pair.other]
        example = f'{image.name} of {groups[owner[pair.one]].name} is like {other.name} of train ({pair.distance})'
        together.add('near-duplicate in two splits', example, Place(image.path), Place(other.path))
    for pair in inside:
        image, other = images[pair.one], images[pair.other]
        findings, example = groups[owner[pair.one]].findings, f'{image.name} is like {other.name} ({pair.distance})'
        findings.add('near-duplicate image', example, Place(image.path), Place(other.path))


def _coded(groups: Sequence[Group]) -> tuple[list[ImageFile], np.ndarray, Codes]:
    """Every file of every group once, the position of its group, and the codes."""
    images, owner, found = [], [], []
    for place, group in enumerate(groups):
        files = list({image.path: image for image in group.images}.values())
        found.append(codes_of(group.folder, [os.path.relpath(image.path, group.folder) for image in files]))
        images += files
        owner += [place] * len(files)
    bits, known = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return images, np.array(owner, dtype=np.int64), Codes(bits, known)


class _Pair(NamedTuple):
    """The positions of a picture and of the one that is nearest to it, and how many bits differ."""

    one: int
    other: int
    bits: int

    @property
    def distance(self) -> str:
        return f'{self.bits} of {BITS} bits differ'


class _Nearest:
    """For each of N pictures the one that is nearest, if any."""

    def __init__(self, count: int):
        self.count = count
        self.best = np.full(count, np.iinfo(np.int64).max)  # bits x count + position

    def update(self, ones: np.ndarray, others: np.ndarray, bits: np.ndarray) -> None:
        np.minimum.at(self.best, ones, bits * self.count + others)

    def __iter__(self) -> Iterator[_Pair]:
        """The nearest pairs first."""
        found = np.flatnonzero(self.best < np.iinfo(np.int64).max)
        for one in found[np.argsort(self.best[found] // max(self.count, 1), kind='stable')].tolist():
            yield _Pair(one, int(self.best[one] % self.count), int(self.best[one] // self.count))
