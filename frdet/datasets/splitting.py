"""Dividing one set of images into parts for training, validation and test: the same images on every machine.

The images are divided class by class, the rarest class first, as in iterative stratification (Sechidis, Tsoumakas and
Vlahavas, "On the Stratification of Multi-Label Data", 2011). Images of one group, such as
near-duplicates, stay together.
"""

from collections import Counter, defaultdict
from hashlib import blake2b
from typing import NamedTuple, TypedDict

import numpy as np

from frdet.datasets.annotations import Annotations
from frdet.errors import ConfigError

PARTS = ('train', 'val', 'test')


class Split(TypedDict, total=False):
    """How a data set is divided: the shares of validation and test, and the seed. Training gets the other images."""

    val: float
    test: float
    seed: int


class Division(NamedTuple):
    """The result of ``divide``.

    Attributes:
        part_of: (N,) the position in ``PARTS`` of the part of every image.
        fingerprint: the same text for the same division, so that two runs can be compared.
        only_in_train: classes that are in training alone, because they have too few images.
    """

    part_of: np.ndarray
    fingerprint: str
    only_in_train: list[str]

    def positions(self, part: str) -> np.ndarray:
        """The positions of the images of ``part``."""
        return np.flatnonzero(self.part_of == PARTS.index(part))


def checked_split(split: Split, part: str | None) -> Split:
    """``split`` with its defaults: a fifth of the images for validation, none for test, seed 0.

    Raises:
        ConfigError: a key or a value of ``split`` is wrong, or it has no such ``part``.
    """
    if unknown := sorted(set(split) - set(Split.__annotations__)):
        raise ConfigError(f'split has {", ".join(unknown)}: it takes {", ".join(Split.__annotations__)}')
    full = Split(val=split.get('val', 0.2), test=split.get('test', 0.0), seed=split.get('seed', 0))
    val, test = full['val'], full['test']
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) or not 0 <= v < 1 for v in (val, test)):
        raise ConfigError(f'split has val {val!r} and test {test!r}: expected shares of the images, from 0 to below 1')
    if not 0 < val + test < 1:
        raise ConfigError(f'split gives {val + test:.0%} of the images to val and test: training needs the others')
    if isinstance(full['seed'], bool) or not isinstance(full['seed'], int):
        raise ConfigError(f'split has the seed {full["seed"]!r}: expected an integer')
    if part not in PARTS:
        raise ConfigError(f'split is given with part {part!r}: choose the part to use, one of {", ".join(PARTS)}')
    if part != 'train' and not full[part]:  # type: ignore[literal-required]
        raise ConfigError(f'part is {part!r}, and split gives it no image: add {part}=0.1, for example, to split')
    return full


def divide(content: Annotations, split: Split, groups: np.ndarray) -> Division:
    """Divide the images of ``content``.

    A class with several groups of images is in every part; a class with one group stays in training. Images without an
    object are divided like a class. The order of the images has no influence, and new images do not shuffle the others.

    Args:
        content: N images. Crowds and ignored objects do not count.
        split: shares and seed, as ``checked_split`` gives them.
        groups: (N,) images with the same number stay together.
    """
    shares = [1 - split['val'] - split['test'], split['val'], split['test']]
    units = _units(content, split['seed'], groups)
    part_of_group = _assign(units, shares, len(content.categories) + 1)
    part_of = np.array([part_of_group[group] for group in groups.tolist()], dtype=np.int64)
    lines = sorted(f'{image["file_name"]}\t{part}' for image, part in zip(content.images, part_of, strict=True))
    fingerprint = blake2b('\n'.join(lines).encode('utf-8', 'surrogateescape'), digest_size=4).hexdigest()
    parts_with = defaultdict(set)
    for unit in units:
        for label in unit.images_of:
            parts_with[label].add(part_of_group[unit.group])
    alone = [name for label, name in enumerate(content.categories) if parts_with[label] == {0}]
    return Division(part_of, fingerprint, alone)


class _Unit(NamedTuple):
    """Images that stay together. ``key`` sorts the units of one seed; ``images_of`` counts images by class."""

    group: int
    size: int
    key: bytes
    images_of: Counter[int]


def _units(content: Annotations, seed: int, groups: np.ndarray) -> list[_Unit]:
    objects = ~(content.crowd | content.ignored)
    pairs = np.unique(np.stack([content.image_index, content.category_index])[:, objects], axis=1)
    labels: list[list[int]] = [[] for _ in content.images]
    for image, label in pairs.T.tolist():
        labels[image].append(label)
    members = defaultdict(list)
    for image, group in enumerate(groups.tolist()):
        members[group].append(image)
    units = []
    for group, images in members.items():
        counts = Counter(label for image in images for label in labels[image] or [len(content.categories)])
        name = min(content.images[image]['file_name'] for image in images)
        key = blake2b(f'{seed}/{name}'.encode('utf-8', 'surrogateescape'), digest_size=16).digest()
        units.append(_Unit(group, len(images), key, counts))
    return sorted(units, key=lambda unit: (-unit.size, unit.key))  # large groups first: they fit only a large part


def _assign(units: list[_Unit], shares: list[float], num_labels: int) -> dict[int, int]:
    """The part of every group."""
    used = [part for part, share in enumerate(shares) if share]
    units_with: list[list[_Unit]] = [[] for _ in range(num_labels)]
    totals: Counter[int] = Counter()
    for unit in units:
        totals.update(unit.images_of)
        for label in unit.images_of:
            units_with[label].append(unit)
    left = Counter({label: len(found) for label, found in enumerate(units_with) if found})
    given: list[Counter[int]] = [Counter() for _ in shares]
    images = [0] * len(shares)
    part_of: dict[int, int] = {}

    def best(label: int) -> int:
        lacking = [part for part in used if not given[part][label]]
        if len(lacking) >= left[label]:  # the last chance of a part to get this class; training comes first
            return lacking[0]
        # Whole images that a part still needs of this class, then how full the part is.
        need = {part: int(shares[part] * totals[label] - given[part][label] + 1e-9) for part in used}
        return max(used, key=lambda part: (need[part], -images[part] / shares[part]))

    while left:
        rarest = min(left, key=lambda label: (left[label], label))
        for unit in units_with[rarest]:
            if unit.group in part_of:
                continue
            part = part_of[unit.group] = best(rarest)
            given[part].update(unit.images_of)
            images[part] += unit.size
            left.subtract(unit.images_of.keys())
        left = +left
    return part_of
