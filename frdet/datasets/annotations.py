"""The images and boxes of a data set in the form that every format gives: N images, M boxes, K categories."""

import copy
import reprlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from frdet.datasets.masks import pack_mask, rle_size
from frdet.datasets.transforms.loading import open_image, shown_size

FAR = 1e9  # pixels: the largest coordinate that is accepted

#: An id of an image or a category: a number or a text, because tools write both.
Id = int | str


@dataclass(kw_only=True, eq=False)
class Annotations:
    """The content of an annotation file or folder. Arrays may be given as lists; they are checked and completed here.

    Args:
        images: N dicts with ``file_name`` (below the folder of images, or absolute), ``height`` and ``width`` of the
            upright image, and ``id``. Without ``id`` the file name is the id.
        categories: the category id of every class name, in the order of the labels; or a list of names, which get the
            ids 1, 2, ...
        image_index: (M,) positions in ``images``.
        category_index: (M,) positions in ``categories``.
        boxes: (M, 4) xyxy in pixels. They become float32 and are cut to their images; a side may be negative or 0.
        xywh: (M, 4) x, y, width and height. Give either these or ``boxes``. Evaluators get them as float64, uncut.
        crowd: (M,) bool, regions that hold many objects. None: no region does.
        ignored: (M,) bool, objects that count neither as found, nor as missed, nor as background. None: no object.
        area: (M,) square pixels of the objects, for example of their masks. The area of the box replaces NaN and
            numbers that are not positive.
        ids: (M,) ids of the annotations, of any kind; only messages and tables name them. None: the format has no ids.
        masks: M masks as COCO writes them, polygons in pixels or RLE, or None where an object has none. They become
            packed ``bytes``, about 150 for an object of COCO; see ``frdet.datasets.masks``. None: no object has a mask.

    Attributes:
        replaced: (M,) bool, whether a given area is 0 or negative, so that the area of the box replaces it.

    Raises:
        ValueError: a shape, type or value is wrong. ``DetDataset`` adds the reader and the file to the message.
    """

    images: list[dict[str, Any]]
    categories: dict[str, Id]
    image_index: np.ndarray
    category_index: np.ndarray
    boxes: np.ndarray = None  # type: ignore[assignment]
    xywh: np.ndarray = None  # type: ignore[assignment]
    crowd: np.ndarray = None  # type: ignore[assignment]
    ignored: np.ndarray = None  # type: ignore[assignment]
    area: np.ndarray = None  # type: ignore[assignment]
    ids: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.images = checked_images(self.images)
        self.categories = _categories(self.categories)
        kind = 'boxes' if self.xywh is None else 'xywh'
        count = len(getattr(self, kind))
        self.xywh = _numbers(kind, getattr(self, kind), (count, 4), FAR).astype(np.float64)
        boxes = self.xywh.astype(np.float32)
        if kind == 'boxes':
            self.xywh[:, 2:] -= self.xywh[:, :2]
        else:
            boxes[:, 2:] += boxes[:, :2]
        for name, section in (('image_index', self.images), ('category_index', self.categories)):
            places = _numbers(name, getattr(self, name), (count,), FAR)
            if len(wrong := np.flatnonzero((places < 0) | (places >= len(section)) | (places % 1 != 0))):
                found = f'{name}[{wrong[0]}] is {places[wrong[0]]}'
                raise ValueError(f'{found}: expected a position from 0 to {len(section) - 1}')
            setattr(self, name, places.astype(np.int64))
        for name in ('crowd', 'ignored'):
            flags = _numbers(name, [0] * count if getattr(self, name) is None else getattr(self, name), (count,), FAR)
            if len(wrong := np.flatnonzero((flags != 0) & (flags != 1))):
                raise ValueError(f'{name}[{wrong[0]}] is {flags[wrong[0]]}: expected 0 or 1')
            setattr(self, name, flags.astype(bool))
        sizes = np.array([(image['width'], image['height']) for image in self.images], dtype=np.float32).reshape(-1, 2)
        self.boxes = boxes.reshape(-1, 2, 2).clip(0, sizes[self.image_index][:, None]).reshape(-1, 4)
        area = np.full(count, np.nan) if self.area is None else _numbers('area', self.area, (count,), FAR**2, nan=True)
        self.replaced = area <= 0
        self.area = np.where(area > 0, area, np.maximum(self.xywh[:, 2], 0) * np.maximum(self.xywh[:, 3], 0))
        if self.ids is not None:
            self.ids = np.asarray(self.ids)
            if self.ids.shape != (count,):
                raise ValueError(f'ids is an array {self.ids.shape}: expected {(count,)}')
        if self.masks is not None:
            self.masks = self._packed(self.masks, count)

    def _packed(self, masks: Sequence[Any] | np.ndarray, count: int) -> np.ndarray | None:
        if len(masks) != count:
            raise ValueError(f'masks has {len(masks)} entries: expected {count}, one for each object')
        packed = np.empty(count, dtype=object)
        for k, mask in enumerate(masks):
            image = self.images[self.image_index[k]]
            try:
                packed[k] = pack_mask(mask)
                check_rle_size(packed[k], image)
            except ValueError as error:
                where = f'masks[{k}], of image {short(image["id"])} ({short(image["file_name"])}),'
                raise ValueError(f'{where} {error}') from None
        return packed if any(packed) else None

    @property
    def areas_replaced(self) -> int:
        """The number of given areas that are 0 or negative."""
        return int(self.replaced.sum())

    def subset(self, positions: np.ndarray) -> 'Annotations':
        """The images at ``positions`` in this order, each once, with their boxes. All categories are kept."""
        place = np.full(len(self.images), -1)
        place[positions] = np.arange(len(positions))
        index = place[self.image_index]
        rows = index >= 0
        part = copy.copy(self)
        part.images = [self.images[position] for position in positions]
        for name in ('category_index', 'boxes', 'xywh', 'crowd', 'ignored', 'area', 'replaced'):
            setattr(part, name, getattr(self, name)[rows])
        part.image_index = index[rows]
        for name in ('ids', 'masks'):
            setattr(part, name, None if (values := getattr(self, name)) is None else values[rows])
        return part

    def names(self) -> list[str]:
        """M texts that tell the annotations of an image apart: their ids, or their numbers in the image, from 1."""
        if self.ids is not None:
            return [str(one) for one in self.ids.tolist()]
        counts: Counter[int] = Counter()
        numbers = []
        for image in self.image_index.tolist():
            counts[image] += 1
            numbers.append(str(counts[image]))
        return numbers

    def labels(self, label_of: Mapping[str, int], other: int = -1) -> np.ndarray:
        """(M,) int64: the label of each box's class in ``label_of``, or ``other`` if the class is not in it."""
        return np.array([label_of.get(name, other) for name in self.categories], dtype=np.int64)[self.category_index]


def _numbers(name: str, value: Any, shape: tuple[int, ...], limit: float, *, nan: bool = False) -> np.ndarray:
    """``value`` as an array of ``shape`` whose numbers are between -``limit`` and ``limit``."""
    array = np.asarray(value) if len(value) else np.zeros(shape)
    if array.shape != shape or array.dtype.kind not in 'biuf':
        raise ValueError(f'{name} is an array {array.shape} of {array.dtype}: expected numbers, {shape}')
    fits = (np.abs(array) <= limit) | (nan & np.isnan(array))
    if len(wrong := np.argwhere(~fits)):
        row = wrong[0][0]
        raise ValueError(f'{name}[{row}] is {array[row].tolist()}: expected finite numbers up to {limit:g}')
    return array


def checked_images(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``images`` with only the four keys of ``Annotations.images``. A ValueError names the first wrong one."""
    seen: dict[Id, int] = {}
    kept = []
    for index, image in enumerate(images):
        if isinstance(image, dict) and 'id' not in image and 'file_name' in image:
            image = {'id': image['file_name'], **image}
        check_image(f'images[{index}]', image)
        if (first := seen.setdefault(image['id'], index)) != index:
            raise ValueError(f'images[{index}] repeats the id {short(image["id"])} of images[{first}]')
        sizes = {key: whole(image[key]) for key in ('id', 'height', 'width')}
        kept.append({'file_name': image['file_name'], **sizes})
    return kept


def _categories(categories: Any) -> dict[str, Id]:
    if not isinstance(categories, dict):
        names = list(categories)
        categories = {name: number for number, name in enumerate(names, start=1)}
        if len(categories) < len(names):
            raise ValueError(f'categories names a class twice: {short(names)}')
    for name, number in categories.items():
        check_category('a category', {'id': number, 'name': name})
    if not categories or len(set(categories.values())) < len(categories):
        raise ValueError(f'categories is {short(categories)}: expected at least one class, and an id for each')
    return {name: whole(number) for name, number in categories.items()}


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of the upright image at ``path``, read from the head of the file: for formats without sizes.

    Raises:
        ValueError: the file is missing or cannot be decoded.
    """
    try:
        with open_image(str(path)) as image:
            return shown_size(image)
    except Exception as error:  # a decoder that reads garbage may raise anything
        raise ValueError(f'the size of {path} is not known, because it cannot be read ({error})') from error


def whole(value: Any) -> Any:
    """A float such as 640.0, which some tools write for 640, becomes an integer. Other values stay as they are."""
    return int(value) if isinstance(value, (float, np.number)) else value


def id_key(value: Id) -> tuple[bool, Id]:
    """The key that sorts ids: first numbers by size, then texts by their characters."""
    return isinstance(value, str), value


def check_fields(where: str, item: Any, **fields: Callable[[Any], str]) -> None:
    """Check a dict of an annotation file. The check of a field returns '' or the expected value in words.

    Raises:
        ValueError: ``item`` is no dict, lacks a field, or has a wrong field. The message begins with ``where``.
    """
    if not isinstance(item, dict):
        raise ValueError(f'{where} is {short(item)}: expected an object with {", ".join(fields)}')
    for field, check in fields.items():
        if field not in item:
            raise ValueError(f'{where} has no {field}: it needs {", ".join(fields)}')
        if expected := check(item[field]):
            raise ValueError(f'{where} has {field} {short(item[field])}: expected {expected}')


def is_id(value: Any) -> str:
    """A check for ``check_fields``, like the other functions ``is_...`` here."""
    if isinstance(value, str):
        return '' if value else 'an id, which is not empty'
    fits = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    fits = fits or (isinstance(value, float) and value.is_integer())
    return '' if fits else 'an integer or a text'


def is_side(value: Any) -> str:
    fits = isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and 0 < value <= FAR
    return '' if fits and value == int(value) else 'a positive number of pixels'


def is_name(value: Any) -> str:
    return '' if isinstance(value, str) and value else 'a text'


def is_flag(value: Any) -> str:
    return '' if isinstance(value, (int, float)) and value in (0, 1) else '0 or 1'


def is_area(value: Any) -> str:
    """Tools write null, or NaN in tables with a gap, for a missing area."""
    fits = value is None or (isinstance(value, (int, float)) and not abs(value) > FAR**2)
    return '' if fits else 'a finite number of square pixels'


def is_xywh(value: Any) -> str:
    fits = isinstance(value, list) and len(value) == 4
    fits = fits and all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= FAR for v in value)
    return '' if fits else 'four finite numbers, [x, y, width, height] in pixels'


check_image = partial(check_fields, id=is_id, file_name=is_name, height=is_side, width=is_side)
check_category = partial(check_fields, id=is_id, name=is_name)


def check_annotation(where: str, annotation: Any) -> None:
    """Raise ValueError, which begins with ``where``, unless ``annotation`` is an item of annotations."""
    check_fields(where, annotation, image_id=is_id, category_id=is_id, bbox=is_xywh)
    optional = {'iscrowd': 0, 'ignore': None, 'area': None, **annotation}
    check_fields(where, optional, iscrowd=is_flag, area=is_area)
    if optional['ignore'] is not None:
        check_fields(where, optional, ignore=is_flag)
    try:
        pack_mask(optional.get('segmentation'))
    except ValueError as error:
        raise ValueError(f'{where}.segmentation {error}') from None


def check_rle_size(packed: bytes | None, image: Mapping[str, Any]) -> None:
    """Raise ValueError if a packed mask is an RLE of another size than its image."""
    size, expected = rle_size(packed) if packed else None, [image['height'], image['width']]
    if size is not None and size != expected:
        raise ValueError(f'is an RLE of {size}: expected the size of its image, {expected} (height, width)')


def short(value: Any) -> str:
    """``value`` shortened for the line of an error, whatever it is."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + '...'
