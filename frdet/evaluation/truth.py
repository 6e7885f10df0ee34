"""The ground truth: images and objects of data sets, which are numbered for an evaluator.

Evaluators need ids that are numbers, keep them as doubles, and read 0 as "none". A user's ids may be any number or
text. So the evaluator gets images and classes that are numbered from 1, and never sees the user's ids.
"""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from frdet.datasets.annotations import Annotations, Id, short
from frdet.datasets.base import UNUSED_CLASS
from frdet.errors import DataError
from frdet.evaluation.backends import Columns

IGNORED = -1.0  # an area outside all of COCO's ranges: such an object counts neither as found nor as missed


class Source(NamedTuple):
    """Annotations, the file or folder that they were read from, and the folder of the images if it is known."""

    ann_file: str
    content: Annotations
    folder: str | None


class Truth:
    """The images of one source, or of the several sources of a joined data set, in their order.

    Raises:
        DataError: two sources have the same image.
    """

    def __init__(self, sources: Sequence[Source]):
        self.sources = sources
        self.names = ' and '.join(source.ann_file for source in self.sources)
        images = [(position, image) for position, source in enumerate(self.sources) for image in source.content.images]
        self.images = [image for _, image in images]
        self._source_of = [position for position, _ in images]
        self._positions: dict[Id, list[int]] = {}
        for position, image in enumerate(self.images):
            self._positions.setdefault(image['id'], []).append(position)
        self._check_joined()

    def position(self, img_id: Id, img_path: str | None) -> int | None:
        """The position of a tested image in ``images``, or None.

        If its path is known, the record must have the same file name, because the same id may stand for another
        picture. The path also tells the images of a joined data set apart that have the same id.
        """
        positions = self._positions.get(img_id, [])
        if img_path is None:
            return positions[0] if len(positions) == 1 else None
        return next((position for position in positions if self._is_file(position, img_path)), None)

    def _is_file(self, position: int, img_path: str) -> bool:
        name, folder = self.images[position]['file_name'], self.sources[self._source_of[position]].folder
        return Path(folder, name) == Path(img_path) if folder is not None else file_name(name) == file_name(img_path)

    def _check_joined(self) -> None:
        for img_id, positions in self._positions.items() if len(self.sources) > 1 else ():
            paths = [Path(self.source_of(i).folder or '', self.images[i]['file_name']) for i in positions]
            if len(set(paths)) < len(paths):
                raise DataError(
                    f'{self.names} both list image {short(img_id)} ({paths[0]}): join data sets of different images, '
                    'or evaluate each of them by a metric of its own'
                )

    def source_of(self, position: int) -> Source:
        """The source of the image at ``position``."""
        return self.sources[self._source_of[position]]

    def category_ids(self, classes: Sequence[str], may_lack: Collection[str] = ()) -> list[Id | None]:
        """The category id of every class in the first file that has the class; None if no file has it.

        Args:
            classes: names by label. ``N/A`` is an unused label unless a file has a category of that name.
            may_lack: classes that may be missing in all files.

        Raises:
            DataError: a class that is not in ``may_lack`` is missing in all files.
        """
        ids: dict[str, Id] = {}
        for source in reversed(self.sources):
            ids.update(source.content.categories)
        if unknown := [name for name in classes if name not in ids and name != UNUSED_CLASS and name not in may_lack]:
            raise DataError(
                f'{self.names} has no category {unknown[0]!r}, a class of the tested data set: '
                'give the evaluator the annotation file of that data set'
            )
        return [ids.get(name) for name in classes]

    def annotations(self, positions: Collection[int], classes: Sequence[str], numbers: dict[int, int]) -> Columns:
        """The annotations of the images at ``positions``. The number of an image is its position + 1.

        Args:
            classes: names by label.
            numbers: the evaluator's category id of every label that counts.
        """
        wanted = np.zeros(len(self.images), dtype=bool)
        wanted[list(positions)] = True
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
        """Whether an object of ``classes``, or of any class if None, counts as found or missed."""
        return any(
            ((one.labels(dict.fromkeys(classes or one.categories, 0)) == 0) & ~one.crowd & ~one.ignored).any()
            for one in (source.content for source in self.sources)
        )

    def doubts(self) -> list[str]:
        """A sentence for each property of the files that a reader of the metric values should know."""
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
        """The error for a tested image that no file has: the metric values would be about other pictures."""
        name = f'image {short(img_id)}' + (f' ({img_path})' if img_path else '')
        same = [self.images[position]['file_name'] for position in self._positions.get(img_id, [])]
        other = f'; the image of that id there is {same[0]}' if same and img_path else ''
        return DataError(
            f'{self.names} has no {name}, which is in {tested}{other}. The evaluator needs the annotations of the '
            'tested images: leave its ann_file out, or give it the file of the data set'
        )

    def boxes_of(self, position: int, classes: Collection[str]) -> np.ndarray:
        """(n, 4) float32 xyxy, cut to the image: the boxes of ``classes`` in the image at ``position``."""
        source = self._source_of[position]
        content = self.sources[source].content
        first = sum(len(other.content.images) for other in self.sources[:source])
        chosen = content.labels(dict.fromkeys(classes, 0)) == 0
        return content.boxes[chosen & (content.image_index == position - first)]


def file_name(path: str) -> str:
    r"""The last part of a path or address that is written with / or \."""
    return PurePosixPath(path.replace('\\', '/')).name
