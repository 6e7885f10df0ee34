"""What detections are held against: images and objects of data sets, under numbers of our own.

Evaluators take ids for numbers, keep them as doubles, and take 0 for "none". Users' ids are whatever a tool wrote. So
images and classes are numbered from 1 for the evaluator; the users' ids stay outside.
"""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from frdet.datasets.annotations import Annotations, Id, short
from frdet.datasets.base import UNUSED_CLASS
from frdet.errors import DataError
from frdet.evaluation.backends import Columns

IGNORED = -1.0  # an area that is in none of COCO's ranges: evaluators count such an object neither way


class Source(NamedTuple):
    """Annotations, the file or folder they were read from, and the folder of the images if that is known."""

    ann_file: str
    content: Annotations
    folder: str | None


class Truth:
    """The images of one or several sources, in their order.

    Args:
        sources: several of a joined data set.

    Raises:
        DataError: two sources have the same image.
    """

    def __init__(self, sources: Sequence[Source]):
        self.sources = sources
        self.names = ' and '.join(source.ann_file for source in self.sources)
        images = [(place, image) for place, source in enumerate(self.sources) for image in source.content.images]
        self.images = [image for _, image in images]
        self._source_of = [place for place, _ in images]
        self._places: dict[Id, list[int]] = {}
        for place, image in enumerate(self.images):
            self._places.setdefault(image['id'], []).append(place)
        self._check_joined()

    def place(self, img_id: Id, img_path: str | None) -> int | None:
        """The place in ``images`` of an image that was tested; None if it is not there.

        Where its path is known, the name of its file must be the one of the record: the same id may stand for another
        picture. In a joined data set several images may have one id; the path tells them apart.
        """
        places = self._places.get(img_id, [])
        if img_path is None:
            return places[0] if len(places) == 1 else None
        return next((place for place in places if self._is_file(place, img_path)), None)

    def _is_file(self, place: int, img_path: str) -> bool:
        name, folder = self.images[place]['file_name'], self.sources[self._source_of[place]].folder
        if folder is not None:
            return Path(folder, name) == Path(img_path)
        return file_name(name) == file_name(img_path)

    def _check_joined(self) -> None:
        if len(self.sources) == 1:
            return
        for img_id, places in self._places.items():
            paths = [Path(self.source_of(place).folder or '', self.images[place]['file_name']) for place in places]
            if len(set(paths)) < len(paths):
                raise DataError(
                    f'{self.names} both list image {short(img_id)} ({paths[0]}): join data sets of different images, '
                    'or evaluate each of them by a metric of its own'
                )

    def source_of(self, place: int) -> Source:
        """The file that lists the image at ``place``."""
        return self.sources[self._source_of[place]]

    def category_ids(self, classes: Sequence[str], may_lack: Collection[str] = ()) -> list[Id | None]:
        """Category id of every class, of the first file that has it; None for one that no file has.

        Args:
            classes: names by label. ``N/A`` is an unused label unless a file has a category of that name.
            may_lack: classes that no file needs to have.

        Raises:
            DataError: no file has a class.
        """
        ids: dict[str, Id] = {}
        for source in reversed(self.sources):
            ids.update(source.content.categories)
        if unknown := [name for name in classes if name not in ids and name != UNUSED_CLASS and name not in may_lack]:
            raise DataError(
                f'{self.names} has no category {unknown[0]!r}, a class of the data set evaluated: '
                'the evaluator needs the annotation file of that data set'
            )
        return [ids.get(name) for name in classes]

    def annotations(self, places: Collection[int], classes: Sequence[str], numbers: dict[int, int]) -> Columns:
        """The annotations of the images at ``places``, whose numbers are place + 1.

        Args:
            classes: names by label.
            numbers: category id, for the evaluator, of every label that counts.
        """
        wanted = np.zeros(len(self.images), dtype=bool)
        wanted[list(places)] = True
        number_of = {name: numbers[label] for label, name in enumerate(classes) if label in numbers}
        parts: list[Columns] = []
        start = 0
        for source in self.sources:
            content = source.content
            image = content.image_index + start
            start += len(content.images)
            category = content.labels(number_of, 0)
            rows = np.flatnonzero(wanted[image] & (category > 0))
            area = np.where(content.ignored, IGNORED, content.area)
            parts.append(Columns(*(c[rows] for c in (image + 1, category, content.xywh, area, content.crowd))))
        return Columns(*map(np.concatenate, zip(*parts, strict=True)))

    def has_object(self, classes: Collection[str] | None) -> bool:
        """Whether there is an object of ``classes`` (any where None) that can be found or missed."""
        contents = [source.content for source in self.sources]
        return any(
            ((one.labels(dict.fromkeys(classes or one.categories, 0)) == 0) & ~one.crowd & ~one.ignored).any()
            for one in contents
        )

    def doubts(self) -> list[str]:
        """A sentence for each thing in the files that a reader of the figures should know."""
        said = []
        for source in self.sources:
            content = source.content
            objects = ~content.crowd & ~content.ignored
            width, height = (content.boxes[:, 2:] - content.boxes[:, :2]).T
            counts = {
                'have an area that is 0 or negative: the area of the box counts': content.areas_replaced,
                'are marked with "ignore": they count neither as found nor as missed': int(content.ignored.sum()),
                'have no area inside their image: they count as objects, and no detection finds them': int(
                    (objects & ((width <= 0) | (height <= 0))).sum()
                ),
            }
            said += [f'{source.ann_file}: {count} boxes {what}' for what, count in counts.items() if count]
        return said

    def lost(self, img_id: Id, img_path: str | None, tested: str) -> DataError:
        """The error of an image that was tested and that no file has: figures would be about other pictures."""
        name = f'image {short(img_id)}' + (f' ({img_path})' if img_path else '')
        same = [self.images[place]['file_name'] for place in self._places.get(img_id, [])]
        other = f'; the image of that id there is {same[0]}' if same and img_path else ''
        return DataError(
            f'{self.names} has no {name}, which is in {tested}{other}. The evaluator needs the annotations of the '
            'images that are tested: leave its ann_file out, or give the file of the data set'
        )

    def boxes_of(self, place: int, classes: Collection[str]) -> np.ndarray:
        """(n, 4) float32 xyxy, cut to the image: all boxes of the image at ``place`` that are of ``classes``."""
        source = self._source_of[place]
        content = self.sources[source].content
        first = sum(len(other.content.images) for other in self.sources[:source])
        chosen = content.labels(dict.fromkeys(classes, 0)) == 0
        return content.boxes[chosen & (content.image_index == place - first)]


def file_name(path: str) -> str:
    r"""The last part of a path or address, whether it is written with / or \."""
    return PurePosixPath(path.replace('\\', '/')).name
