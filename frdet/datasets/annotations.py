"""The images and boxes of a data set, as every format gives them: N images, M boxes, K categories."""

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FAR = 1e9  # pixels: no coordinate lies further out, NaN and infinity included

#: An id of an image or a category: a number or a text, whatever the tool that wrote the file uses.
Id = int | str


@dataclass(kw_only=True, eq=False)
class Annotations:
    """What a reader gives for a file or a folder. Arrays may be given as lists; they are checked and completed here.

    Args:
        images: N dicts with ``file_name`` (below the folder of images, or absolute), ``height`` and ``width`` of the
            upright image, and ``id``, which is the file name where there is none.
        categories: category id of every class name, in the order of the labels; or the names alone, whose ids are
            then 1, 2, ...
        boxes: (M, 4) xyxy in pixels. They become float32, cut to their images; a side may be negative or 0.
        image_index: (M,) places in ``images``.
        category_index: (M,) places in ``categories``.
        crowd: (M,) bool, regions that hold many objects; none where None.
        ignored: (M,) bool, objects that count neither as found nor as missed, nor as background; none where None.
        area: (M,) square pixels of the object, such as of its mask. The box's area takes the place of a number that
            is not positive, of NaN, and of None for all.
        xywh: (M, 4) float64, the boxes as the file has them, where it has width and height. Evaluators get them.

    Attributes:
        areas_replaced: how many areas were given that are 0 or negative.

    Raises:
        ValueError: something has a wrong shape, type or value. ``DetDataset`` adds the reader and the file.
    """

    images: list[dict[str, Any]]
    categories: dict[str, Id]
    boxes: np.ndarray
    image_index: np.ndarray
    category_index: np.ndarray
    crowd: np.ndarray = None  # type: ignore[assignment]
    ignored: np.ndarray = None  # type: ignore[assignment]
    area: np.ndarray = None  # type: ignore[assignment]
    xywh: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.images = checked_images(self.images)
        self.categories = _categories(self.categories)
        boxes = np.asarray(self.boxes if len(self.boxes) else np.zeros((0, 4)))
        count = len(boxes)
        _expect('boxes', boxes, (count, 4), 'iuf', 'x1, y1, x2, y2 in pixels')
        if len(wrong := np.flatnonzero(~(np.abs(boxes) <= 2 * FAR).all(axis=1))):
            raise ValueError(f'boxes[{wrong[0]}] is {boxes[wrong[0]].tolist()}: expected finite numbers of pixels')
        self.image_index = _places('image_index', self.image_index, count, len(self.images), 'images')
        self.category_index = _places('category_index', self.category_index, count, len(self.categories), 'categories')
        self.crowd, self.ignored = (_flags(name, getattr(self, name), count) for name in ('crowd', 'ignored'))
        exact = boxes.astype(np.float64)
        exact[:, 2:] -= exact[:, :2]
        self.xywh = exact if self.xywh is None else self.xywh
        sizes = np.array([(image['width'], image['height']) for image in self.images], dtype=np.float32).reshape(-1, 2)
        corners = boxes.astype(np.float32).reshape(-1, 2, 2)
        self.boxes = corners.clip(0, sizes[self.image_index][:, None]).reshape(-1, 4)
        area = np.full(count, np.nan) if self.area is None else np.asarray(self.area if count else [], dtype=np.float64)
        _expect('area', area, (count,), 'f', 'square pixels')
        self.areas_replaced = int((area <= 0).sum())
        self.area = np.where(area > 0, area, np.maximum(self.xywh[:, 2], 0) * np.maximum(self.xywh[:, 3], 0))


def _expect(name: str, array: np.ndarray, shape: tuple[int, ...], kinds: str, what: str) -> None:
    if array.shape != shape or array.dtype.kind not in kinds:
        wanted = ', '.join(map(str, shape)) + (',' if len(shape) == 1 else '')
        raise ValueError(f'{name} is an array {array.shape} of {array.dtype}: expected ({wanted}) of {what}')


def _places(name: str, value: Any, count: int, stop: int, section: str) -> np.ndarray:
    """(M,) int64, each at least 0 and less than ``stop``."""
    array = np.asarray(value if len(value) else np.zeros(0, dtype=np.int64))
    _expect(name, array, (count,), 'iu', f'places in {section}, one for each of the {count} boxes')
    if len(wrong := np.flatnonzero((array < 0) | (array >= stop))):
        raise ValueError(f'{name}[{wrong[0]}] is {array[wrong[0]]}: {section} has {stop} items, counted from 0')
    return array.astype(np.int64)


def _flags(name: str, value: Any, count: int) -> np.ndarray:
    array = np.zeros(count, dtype=bool) if value is None else np.asarray(value if len(value) else np.zeros(0, bool))
    _expect(name, array, (count,), 'biuf', f'0 or 1, one for each of the {count} boxes')
    if len(wrong := np.flatnonzero((array != 0) & (array != 1))):
        raise ValueError(f'{name}[{wrong[0]}] is {array[wrong[0]]}: expected 0 or 1')
    return array.astype(bool)


def checked_images(images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``images`` with the four keys of ``Annotations.images`` alone; ValueError names the first that is wrong."""
    seen: dict[Id, int] = {}
    kept = []
    for index, image in enumerate(images):
        if isinstance(image, dict) and 'id' not in image and 'file_name' in image:
            image = {'id': image['file_name'], **image}
        check_fields(f'images[{index}]', image, **IMAGE_FIELDS)
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
        check_fields('a category', {'id': number, 'name': name}, **CATEGORY_FIELDS)
    if not categories or len(set(categories.values())) < len(categories):
        raise ValueError(f'categories is {short(categories)}: expected at least one class, and an id for each')
    return {name: whole(number) for name, number in categories.items()}


def whole(value: Any) -> Any:
    """A number such as 640.0, which tools write for 640, as an integer; anything else as it is."""
    return int(value) if isinstance(value, (float, np.number)) else value


def id_order(value: Id) -> tuple[bool, Id]:
    """The key that sorts ids: numbers by size, then texts by their characters."""
    return isinstance(value, str), value


def check_fields(where: str, item: Any, **fields: Callable[[Any], str]) -> None:
    """Check a dict of an annotation file; a field's check returns '' or what it expected.

    Raises:
        ValueError: ``item`` is no dict, lacks a field, or a field does not pass; the message begins with ``where``.
    """
    if not isinstance(item, dict):
        raise ValueError(f'{where} is {short(item)}: expected an object with {", ".join(fields)}')
    for field, check in fields.items():
        if field not in item:
            raise ValueError(f'{where} has no {field}: it needs {", ".join(fields)}')
        if expected := check(item[field]):
            raise ValueError(f'{where} has {field} {short(item[field])}: expected {expected}')


def is_id(value: Any) -> str:
    """A check for ``check_fields``, as the two that follow."""
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


IMAGE_FIELDS = dict(id=is_id, file_name=is_name, height=is_side, width=is_side)
CATEGORY_FIELDS = dict(id=is_id, name=is_name)


def short(value: Any) -> str:
    """``value`` in a line of an error, whatever a file may hold."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + '...'
