"""Reading a COCO annotation file: every annotation in arrays, or one sentence about the first thing wrong."""

import gc
import gzip
import json
import math
import reprlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.errors import DataError

FAR = 1e9  # pixels: no coordinate lies further out, NaN and infinity included
SECTIONS = ('images', 'annotations', 'categories')
LAYOUT = 'expected COCO\'s object detection layout, {"images": [...], "annotations": [...], "categories": [...]}'

#: First bytes of files that hold an annotation file, and what to call them.
ARCHIVES = {b'PK\x03\x04': 'a ZIP archive', b'BZh': 'compressed by bzip2', b'\xfd7zXZ': 'compressed by xz'}

#: An id of an image or a category: a number or a text, whatever the tool that wrote the file uses.
Id = int | str


class CocoAnnotations(NamedTuple):
    """An annotation file of N images and M annotations.

    Attributes:
        images: N dicts with ``id``, ``file_name``, ``height``, ``width``, by ascending id.
        categories: category id of every category name, by ascending id.
        xywh: (M, 4) float64, the boxes as the file has them.
        boxes: (M, 4) float32 xyxy in pixels of the image, cut to it; sides are negative or 0 where the file says so.
        image_index: (M,) int64, place in ``images``.
        category_index: (M,) int64, place in ``categories``.
        crowd: (M,) bool, regions that hold many objects.
        ignored: (M,) bool, objects that count neither as found nor as missed, nor as background: ``"ignore": 1``.
        area: (M,) float64, square pixels; the box's where the file has no positive number.
        areas_replaced: how many areas the file has that are 0 or negative.
    """

    images: list[dict[str, Any]]
    categories: dict[str, Id]
    xywh: np.ndarray
    boxes: np.ndarray
    image_index: np.ndarray
    category_index: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray
    area: np.ndarray
    areas_replaced: int


def read_coco(path: str | Path) -> CocoAnnotations:
    """Read and check the annotation file at ``path``.

    Ids of annotations are not read: nothing depends on them, and tools write them in many ways.

    Raises:
        DataError: the file is not JSON, is not in COCO's layout, or an item is wrong; the message names the item.
    """
    content = load_sections(path)
    images, categories = _images(path, content['images']), _categories(path, content['categories'])
    annotations = content['annotations']
    image_place = {image['id']: place for place, image in enumerate(images)}
    category_place = {cat_id: place for place, cat_id in enumerate(categories.values())}
    try:
        image_index = np.array([image_place[a['image_id']] for a in annotations], dtype=np.int64)
        category_index = np.array([category_place[a['category_id']] for a in annotations], dtype=np.int64)
        crowd = np.array([a.get('iscrowd', 0) for a in annotations])
        ignored = np.array([0 if (v := a.get('ignore')) is None else v for a in annotations])
        area = np.array([math.nan if (v := a.get('area')) is None else v for a in annotations])
        xywh = np.array([a['bbox'] for a in annotations] or np.zeros((0, 4)))
        count = len(annotations)
        well = xywh.shape == (count, 4) and area.shape == crowd.shape == ignored.shape == (count,)
        well = well and xywh.dtype.kind in 'iuf' and bool((np.abs(xywh) <= FAR).all())
        well = well and {0, 1}.issuperset(crowd.tolist()) and {0, 1}.issuperset(ignored.tolist())
        well = well and area.dtype.kind in 'biuf' and not bool((np.abs(area) > FAR**2).any())
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        well = False
    if not well:
        raise _first_bad_annotation(path, annotations, image_place, category_place)
    xywh = xywh.astype(np.float64)
    area = area.astype(np.float64)
    own = np.maximum(xywh[:, 2], 0) * np.maximum(xywh[:, 3], 0)
    return CocoAnnotations(
        images,
        categories,
        xywh,
        _cut(xywh, images, image_index),
        image_index,
        category_index,
        crowd.astype(bool),
        ignored.astype(bool),
        np.where(area > 0, area, own),
        int((area <= 0).sum()),
    )


def _cut(xywh: np.ndarray, images: list[dict[str, Any]], image_index: np.ndarray) -> np.ndarray:
    """(M, 4) float32 xyxy, cut to the images."""
    sizes = np.array([(image['width'], image['height']) for image in images], dtype=np.float32).reshape(-1, 2)
    boxes = xywh.astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return boxes.reshape(-1, 2, 2).clip(0, sizes[image_index][:, None]).reshape(-1, 4)


def load_sections(path: str | Path) -> dict[str, list]:
    """The three lists of an annotation file, without masks; what stands in them is not looked at.

    The file may be in UTF-8, UTF-16 or UTF-32, with or without a byte order mark, and compressed by gzip.

    Raises:
        DataError: the file cannot be read, is not JSON, or lacks one of the lists.
    """
    text = _text(path)
    if not text.strip():
        raise DataError(f'{path} is empty: {LAYOUT}')
    try:
        with _no_garbage_collection():
            content = json.loads(text, object_hook=_without_masks)
    except (ValueError, RecursionError) as error:
        several = ': it holds several values, one after another' if str(error).startswith('Extra data') else ''
        raise DataError(f'{path} is not JSON{several} ({error}): {LAYOUT}') from None
    if not isinstance(content, dict):
        raise DataError(f'{path} holds a JSON {type(content).__name__}: {LAYOUT}')
    if missing := [name for name in SECTIONS if name not in content]:
        found = ', '.join(list(content)[:8]) or 'nothing'
        raise DataError(
            f'{path} is no COCO annotation file, it has no {" and no ".join(missing)} (found {found}): {LAYOUT}'
        )
    for name in SECTIONS:
        if not isinstance(content[name], list):
            raise DataError(f'{path}: {name} is a {type(content[name]).__name__}: {LAYOUT}')
    return content


def _text(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
        if data.startswith(b'\x1f\x8b'):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f'{path} is compressed by gzip and broken ({error}): write it anew') from None
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}') from None
    for magic, kind in ARCHIVES.items():
        if data.startswith(magic):
            raise DataError(f'{path} is {kind}: unpack it, or compress it by gzip')
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        raise DataError(
            f'{path} is not JSON in UTF-8 (byte {data[error.start]:#x} at {error.start}): save it as UTF-8'
        ) from None


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of objects are made and none forms a circle: looking for circles doubles the time of reading."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _without_masks(item: dict) -> dict:
    """Drop the masks while the file is being read: they are most of its memory, and boxes need none of them."""
    item.pop('segmentation', None)
    return item


def _images(path: str | Path, images: list) -> list[dict[str, Any]]:
    seen = set()
    for index, image in enumerate(images):
        where = f'{path}: images[{index}]'
        check_image(where, image)
        if image['id'] in seen:
            raise DataError(f'{where} repeats the id {short(image["id"])}: every image needs an id of its own')
        seen.add(image['id'])
        image.update({key: whole(image[key]) for key in ('id', 'height', 'width')})
    return sorted(images, key=lambda image: id_order(image['id']))


def _categories(path: str | Path, categories: list) -> dict[str, Id]:
    seen: dict[str, Id] = {}
    for index, category in enumerate(categories):
        where = f'{path}: categories[{index}]'
        check_category(where, category)
        if category['name'] in seen or category['id'] in seen.values():
            raise DataError(
                f'{where} repeats the name {category["name"]!r} or the id {short(category["id"])}: both must be unique'
            )
        seen[category['name']] = whole(category['id'])
    if not seen:
        raise DataError(
            f'{path} has no category: categories needs one item for every class, {{"id": 1, "name": "..."}}'
        )
    return dict(sorted(seen.items(), key=lambda item: id_order(item[1])))


def whole(value: Any) -> Any:
    """A number such as 640.0, which tools write for 640, as an integer; anything else as it is."""
    return int(value) if isinstance(value, float) else value


def id_order(value: Id) -> tuple[bool, Id]:
    """The key that sorts ids: numbers by size, then texts by their characters."""
    return isinstance(value, str), value


def _first_bad_annotation(
    path: str | Path, annotations: list, image_ids: dict[Id, int], category_ids: dict[Id, int]
) -> DataError:
    for index, annotation in enumerate(annotations):
        where = f'{path}: annotations[{index}]'
        try:
            check_annotation(where, annotation)
        except DataError as error:
            return error
        for field, known, section in (('image_id', image_ids, 'images'), ('category_id', category_ids, 'categories')):
            if lost := which_is_lost(annotation[field], field, known, section):
                return DataError(f'{where} (id {short(annotation.get("id"))}) has {lost}')
    raise AssertionError('every annotation passes one by one, but not together')


def which_is_lost(value: Id, field: str, known: Any, section: str) -> str:
    """What to say of an id that no item of ``section`` has; nothing where ``known`` holds it."""
    if value in known:
        return ''
    other = str(value) if not isinstance(value, str) else int(value) if value.isdecimal() and len(value) < 20 else None
    hint = f', where {other!r} is one: numbers and texts differ' if other in known else ''
    return f'{field} {short(value)}, which no item of {section} has{hint}'


def check_image(where: str, image: Any) -> None:
    """Raise DataError, which begins with ``where``, unless ``image`` is an item of images."""
    _check(where, image, id=_is_id, file_name=_is_name, height=_is_side, width=_is_side)


def check_category(where: str, category: Any) -> None:
    """Raise DataError, which begins with ``where``, unless ``category`` is an item of categories."""
    _check(where, category, id=_is_id, name=_is_name)


def check_annotation(where: str, annotation: Any) -> None:
    """Raise DataError, which begins with ``where``, unless ``annotation`` is an item of annotations."""
    _check(where, annotation, image_id=_is_id, category_id=_is_id, bbox=_is_xywh)
    optional = {'iscrowd': 0, 'ignore': None, 'area': None, **annotation}
    _check(where, optional, iscrowd=_is_flag, ignore=_is_flag_or_none, area=_is_area)


def _is_id(value: Any) -> str:
    if isinstance(value, str):
        return '' if value else 'an id, which is not empty'
    fits = isinstance(value, int) and not isinstance(value, bool)
    fits = fits or (isinstance(value, float) and value.is_integer())
    return '' if fits else 'an integer or a text'


def _is_side(value: Any) -> str:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= FAR
    return '' if fits and value == int(value) else 'a positive number of pixels'


def _is_name(value: Any) -> str:
    return '' if isinstance(value, str) and value else 'a text'


def _is_flag(value: Any) -> str:
    return '' if isinstance(value, (int, float)) and value in (0, 1) else '0 or 1'


def _is_flag_or_none(value: Any) -> str:
    return '' if value is None else _is_flag(value)


def _is_area(value: Any) -> str:
    """JSON's null, and the NaN of tables with a gap, are how tools say that there is none."""
    fits = value is None or (isinstance(value, (int, float)) and not abs(value) > FAR**2)
    return '' if fits else 'a finite number of square pixels'


def _is_xywh(value: Any) -> str:
    fits = isinstance(value, list) and len(value) == 4
    fits = fits and all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) <= FAR for v in value)
    return '' if fits else 'four finite numbers, [x, y, width, height] in pixels'


def _check(where: str, item: Any, **fields: Any) -> None:
    """Raise DataError unless ``item`` is a dict whose fields pass; a check returns '' or what it expected."""
    if not isinstance(item, dict):
        raise DataError(f'{where} is {short(item)}: expected an object with {", ".join(fields)}')
    for field, check in fields.items():
        if field not in item:
            raise DataError(f'{where} has no {field}: it needs {", ".join(fields)}')
        if expected := check(item[field]):
            raise DataError(f'{where} has {field} {short(item[field])}: expected {expected}')


def short(value: Any) -> str:
    """``value`` in a line of an error, whatever a file may hold."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + '...'
