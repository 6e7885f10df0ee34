"""A source of labelled images: its parts, as it has them or divided by a seed, and their annotations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.annotations import Annotations
from frdet.datasets.formats.recognising import Found, recognise
from frdet.errors import DataError
from frdet.registry import DATASETS

SPLIT = dict(val=0.2, seed=0)  # of a source without parts
UNLABELLED = 'ImageFolder'  # the reader of images without labels


class Parts(NamedTuple):
    """Which images are for training, validation and test.

    Attributes:
        arguments: 'train', 'val' and perhaps 'test' -> the arguments of the data set beside ``type`` and ``data_root``.
        is_divided: the source has no parts, and ``SPLIT`` divides it.
        notes: what the reader should know, in sentences.
    """

    arguments: dict[str, dict[str, Any]]
    is_divided: bool
    notes: list[str]


class Source(NamedTuple):
    """A source that has been read.

    Attributes:
        path: as the user wrote it.
        contents: the annotations of each part; of 'all' images if the source has no parts.
        classes: names of the classes with a box, in the order of the labels.
        unused: names of the classes without a box.
        background: the arguments of a data set of images without objects, if there are any.
    """

    path: str
    found: Found
    parts: Parts
    contents: dict[str, Annotations]
    classes: list[str]
    unused: list[str]
    background: dict[str, Any] | None

    @property
    def num_train(self) -> int:
        """The number of images to train on, roughly if they are still to be divided."""
        content = self.contents.get('train')
        return len(content.images) if content else round(len(self.contents['all'].images) * (1 - SPLIT['val']))


def look_at(path: str | Path, background: str | Path | None = None) -> Source:
    """Read the labels in a folder or file; ``background`` is a folder of images without objects.

    Raises:
        DataError: it has no labels, no box, nothing to train on, or cannot be read; or ``background`` has labels.
    """
    found = recognise(path)
    if found.reader == UNLABELLED:
        raise DataError(
            f'{path} has images and no labels: label your objects first. Images that show none of your objects are '
            f'given beside labelled ones, with --background {path}'
        )
    parts = parts_of(found)
    read = {'all': parts.arguments['train']} if parts.is_divided else parts.arguments
    contents = {name: read_part(found, arguments) for name, arguments in read.items()}
    each = [count_boxes(content) for content in contents.values()]
    names = list(dict.fromkeys(name for counts in each for name in counts))
    classes = [name for name in names if any(counts.get(name) for counts in each)]
    if not classes:
        raise DataError(f'{path} has no box: {found.format} with {len(names)} classes, and all images are empty')
    unused = [name for name in names if name not in classes]
    negatives = _background(background) if background is not None else None
    return Source(str(path), found, parts, contents, classes, unused, negatives)


def parts_of(found: Found) -> Parts:
    """The parts of a source. If it has one part or none, it is divided; without val, test is used for validation.

    Raises:
        DataError: it has several parts, and none for training.
    """
    parts = found.parts
    if len(parts) == 1:
        (whole,) = parts.values()
        whole = {key: value for key, value in whole.items() if key != 'part'}
        return Parts({name: {**whole, 'split': SPLIT, 'part': name} for name in ('train', 'val')}, True, [])
    if 'train' not in parts:
        raise DataError(f'{found.root} has {" and ".join(parts)}, and no train: give the one to learn from by its path')
    if 'val' in parts:
        return Parts(dict(parts), False, [])
    note = 'There is no val, so test is used for validation: the best checkpoint is chosen on the images of the test.'
    return Parts({'train': parts['train'], 'val': parts['test']}, False, [note])


def read_part(found: Found, arguments: Mapping[str, Any]) -> Annotations:
    """The annotations of a part, or of all images if ``arguments`` divide them."""
    if 'split' in arguments:
        arguments = {key: value for key, value in arguments.items() if key not in ('split', 'part')}
    dataset = DATASETS.build(dict(type=found.reader, data_root=found.root, lazy_init=True, **arguments))
    return dataset.annotations()


def count_boxes(content: Annotations) -> dict[str, int]:
    """The number of objects of every class. Crowds and ignored objects do not count."""
    objects = content.category_index[~(content.crowd | content.ignored)]
    return dict(zip(content.categories, np.bincount(objects, minlength=len(content.categories)).tolist(), strict=True))


def _background(path: str | Path) -> dict[str, Any]:
    found = recognise(path)
    if found.reader != UNLABELLED:
        raise DataError(f'--background {path} has labels ({found.format}): give a folder of images without labels')
    (arguments,) = found.parts.values()
    return dict(type=found.reader, data_root=found.root, **arguments)
