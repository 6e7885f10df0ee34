"""The ground truth: images and objects of the tested data sets, which are numbered for an evaluator.

Evaluators need ids that are numbers, keep them as doubles, and read 0 as "none". A user's ids may be any number or
text. So the evaluator gets images and classes that are numbered from 1, and never sees the user's ids.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.annotations import Annotations, Id, short
from frdet.datasets.base import DetDataset
from frdet.datasets.classes import UNUSED_CLASS
from frdet.datasets.masks import rle_of, unpack_mask
from frdet.datasets.wrappers import leaves
from frdet.errors import ConfigError, DataError, defined
from frdet.evaluation.backends import Columns

IGNORED = -1.0  # an area outside all of COCO's ranges: such an object counts neither as found nor as missed


class Source(NamedTuple):
    """The name of annotations in messages, the annotations, and the folder of the images if it is known."""

    name: str
    content: Annotations
    folder: str | None


class Truth:
    """The images of one source, or of the several sources of a joined data set, in their order.

    Raises:
        DataError: two sources have the same image.
    """

    def __init__(self, sources: Sequence[Source]):
        self.sources = sources
        self.names = ' and '.join(source.name for source in sources)
        # The source of every image, and its position there.
        self._places = [(source, index) for source in sources for index in range(len(source.content.images))]
        self.images = [source.content.images[index] for source, index in self._places]
        self._positions: dict[Id, list[int]] = {}
        for position, image in enumerate(self.images):
            self._positions.setdefault(image['id'], []).append(position)
        for img_id, positions in self._positions.items() if len(sources) > 1 else ():
            paths = [Path(self.source_of(i).folder or '', self.images[i]['file_name']) for i in positions]
            if len(set(paths)) < len(paths):
                raise DataError(
                    f'{self.names} both list image {short(img_id)} ({paths[0]}): join data sets of different images, '
                    'or evaluate each of them by a metric of its own'
                )

    @property
    def has_annotation(self) -> bool:
        """Whether anything is annotated: a test set for a challenge, or a folder of images, has only images."""
        return any(len(source.content.boxes) for source in self.sources)

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
        name, folder = self.images[position]['file_name'], self.source_of(position).folder
        return Path(folder, name) == Path(img_path) if folder is not None else _last(name) == _last(img_path)

    def source_of(self, position: int) -> Source:
        """The source of the image at ``position``."""
        return self._places[position][0]

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
        parts = [
            Columns(*(c[rows] for c in (image + 1, category, one.xywh, _areas(one), one.crowd)))
            for one, image, category, rows in self._chosen(positions, classes, numbers)
        ]
        return Columns(*map(np.concatenate, zip(*parts, strict=True)))

    def masks(
        self, positions: Collection[int], classes: Sequence[str], numbers: dict[int, int]
    ) -> list[dict[str, Any]]:
        """COCO's compressed RLE of the ``annotations`` of the same arguments."""
        return [
            rle_of(unpack_mask(one.masks[row]), self.size(image[row]))  # type: ignore[index]
            for one, image, _, rows in self._chosen(positions, classes, numbers)
            for row in rows.tolist()
        ]

    def packed_masks(
        self, positions: Collection[int], classes: Sequence[str], numbers: dict[int, int]
    ) -> list[bytes | None]:
        """The masks of the ``annotations`` of the same arguments as they were read; None where there is none."""
        return [
            None if one.masks is None else one.masks[row]
            for one, _, _, rows in self._chosen(positions, classes, numbers)
            for row in rows.tolist()
        ]

    def size(self, position: int) -> tuple[int, int]:
        """(height, width) of the image at ``position``."""
        return self.images[position]['height'], self.images[position]['width']

    def check_masks(self, classes: Sequence[str]) -> None:
        """Raise DataError unless every object of ``classes`` has a mask, crowds and ignored objects included."""
        for source in self.sources:
            one = source.content
            rows = np.flatnonzero(one.labels(dict.fromkeys(classes or one.categories, 0)) == 0)
            lacking = (row for row in rows if one.masks is None or one.masks[row] is None)
            if (row := next(lacking, None)) is None:
                continue
            image = one.images[one.image_index[row]]
            what = 'was read without masks' if one.masks is None else 'has objects without a mask'
            raise DataError(
                f'{source.name} {what}, the first in image {short(image["id"])} ({image["file_name"]}), and metric has '
                "segm: set with_masks=True for the tested data set, whose objects need polygons or RLE in COCO's JSON, "
                "or evaluate boxes alone with metric='bbox'"
            )

    def annotation_names(
        self, positions: Collection[int], classes: Sequence[str], numbers: dict[int, int]
    ) -> list[str]:
        """Texts that name the ``annotations`` of the same arguments; see ``Annotations.names``."""
        named = [(one.names(), rows) for one, _, _, rows in self._chosen(positions, classes, numbers)]
        return [names[row] for names, rows in named for row in rows]

    def _chosen(
        self, positions: Collection[int], classes: Sequence[str], numbers: dict[int, int]
    ) -> Iterator[tuple[Annotations, np.ndarray, np.ndarray, np.ndarray]]:
        """For each source: its content, the image and category of its annotations, and the chosen rows of them."""
        wanted = np.zeros(len(self.images), dtype=bool)
        wanted[list(positions)] = True
        number_of = {name: numbers[label] for label, name in enumerate(classes) if label in numbers}
        start = 0
        for source in self.sources:
            content = source.content
            image = content.image_index + start
            start += len(content.images)
            category = content.labels(number_of, 0)
            yield content, image, category, np.flatnonzero(wanted[image] & (category > 0))

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
            said += [f'{source.name}: {count} boxes {what}' for what, count in counts.items() if count]
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
        (_, content, _), index = self._places[position]
        chosen = content.labels(dict.fromkeys(classes, 0)) == 0
        return content.boxes[chosen & (content.image_index == index)]


def _areas(content: Annotations) -> np.ndarray:
    return np.where(content.ignored, IGNORED, content.area)


def _last(path: str) -> str:
    r"""The last part of a path or address that is written with / or \."""
    return PurePosixPath(path.replace('\\', '/')).name


def parts_of(dataset: Any, ann_file: str | None) -> tuple[list[DetDataset], list[Any]]:
    """The data sets inside ``dataset`` that were read from ``ann_file``, or all if it is None; and the other ones.

    Raises:
        ConfigError: ``ann_file`` is None, and a data set is no ``DetDataset``.
    """
    own: list[DetDataset] = []
    others: list[Any] = []
    for part in leaves(dataset):
        if ann_file is None and not isinstance(part, DetDataset):
            raise ConfigError(
                f'CocoMetric has no ground truth to compare with: the tested {defined(type(part))} is no DetDataset. '
                "Derive it from frdet.datasets.DetDataset, or give the annotations as COCO's JSON with ann_file"
            )
        is_own = isinstance(part, DetDataset) and (ann_file is None or _is_same(part.ann_file, ann_file))
        (own if is_own else others).append(part)
    return own, others


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def truth_of(datasets: Sequence[DetDataset]) -> Truth:
    """The truth of data sets. Data sets that read the same files, such as two subsets of one, are a single source."""
    sources = {one.source: one for one in datasets}
    return Truth([Source(one.title, one.annotations(), one.data_prefix['img']) for one in sources.values()])


def classes_lacking(datasets: Sequence[Any]) -> set[str]:
    """Classes that ``metainfo`` of every data set names and that all of their files lack."""
    named = [zip(classes_of(one), getattr(one, 'cat_ids', None) or (), strict=False) for one in datasets]
    lacking = [{name for name, cat_id in names if cat_id is None} - {UNUSED_CLASS} for names in named]
    return set.intersection(*lacking) if lacking else set()


def classes_of(dataset: Any) -> Sequence[str]:
    """The names of the classes of a data set by label; none if it does not tell them."""
    return (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()


def check_images(truth: Truth, dataset: Any) -> list[str]:
    """Compare the images of ``dataset`` with ``truth``, which was read from other files.

    Returns:
        Sentences about differences that may be intended.

    Raises:
        DataError: ``truth`` lacks an image or has it with another size, or no image has the same boxes.
    """
    if not hasattr(dataset, 'get_data_info'):
        return []
    classes = set(classes_of(dataset))
    name = ' and '.join(sorted({str(getattr(part, 'ann_file', type(part).__name__)) for part in leaves(dataset)}))
    compared = differ = 0
    for record in map(dataset.get_data_info, range(len(dataset))):
        if 'img_id' not in record:
            return []
        position = truth.position(record['img_id'], record.get('img_path'))
        if position is None:
            raise truth.lost(record['img_id'], record.get('img_path'), name)
        image = truth.images[position]
        size = tuple(record.get(side, image[side]) for side in ('width', 'height'))
        if size != (image['width'], image['height']):
            raise DataError(
                f'Image {record["img_id"]} is {size[0]}x{size[1]} in {name} and {image["width"]}x{image["height"]} in '
                f'{truth.names}: these are two pictures. Leave ann_file of the evaluator out, or give it {name}'
            )
        if 'gt_bboxes' in record:
            there = truth.boxes_of(position, classes)
            boxes = np.asarray(record['gt_bboxes'], dtype=np.float32)
            compared += bool(len(there) or len(boxes))
            differ += sorted(there.tolist()) != sorted(boxes.tolist())
    if differ and differ == compared and compared > 1:
        raise DataError(
            f'{name} and {truth.names} list the same images, but differ in the boxes of all {compared} images with '
            'boxes: do two sets of pictures have the same names? Leave ann_file of the evaluator out, or give it '
            f'{name}'
        )
    said = f'The tested {name} and {truth.names} differ in the boxes of {differ} of {compared} images: the latter count'
    return [said] if differ else []
