"""Reading a COCO annotation file: every annotation in four arrays, or one sentence about the first thing wrong."""

import gc
import json
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.errors import DataError

FAR = 1e9  # pixels: no coordinate lies further out, NaN and infinity included
MAX_ID = 2**63 - 1  # ids are held in 64 bits
SECTIONS = ('images', 'annotations', 'categories')
LAYOUT = 'expected COCO\'s object detection layout, {"images": [...], "annotations": [...], "categories": [...]}'


class CocoAnnotations(NamedTuple):
    """An annotation file of N images and M annotations.

    Attributes:
        images: N dicts with ``id``, ``file_name``, ``height``, ``width``, by ascending id.
        categories: category id of every category name, by ascending id.
        boxes: (M, 4) float32 xyxy in pixels of the image, cut to it; sides are negative or 0 where the file says so.
        image_index: (M,) int64, place in ``images``.
        category_id: (M,) int64.
        crowd: (M,) bool, regions that hold many objects.
    """

    images: list[dict[str, Any]]
    categories: dict[str, int]
    boxes: np.ndarray
    image_index: np.ndarray
    category_id: np.ndarray
    crowd: np.ndarray


def read_coco(path: str | Path) -> CocoAnnotations:
    """Read and check the annotation file at ``path``.

    Raises:
        DataError: the file is not JSON, is not in COCO's layout, or an item is wrong; the message names the item.
    """
    content = load_sections(path)
    images, categories = _images(path, content['images']), _categories(path, content['categories'])
    annotations = content['annotations']
    index_of = {image['id']: index for index, image in enumerate(images)}
    category_ids = set(categories.values())
    try:
        image_index = np.array([index_of[a['image_id']] for a in annotations], dtype=np.int64)
        category_id = np.array([a['category_id'] for a in annotations])
        crowd = np.array([a.get('iscrowd', 0) for a in annotations])
        xywh = np.array([a['bbox'] for a in annotations] or np.zeros((0, 4)))
        count = len(annotations)
        well = xywh.shape == (count, 4) and category_id.shape == crowd.shape == (count,)
        well = well and xywh.dtype.kind in 'iuf' and bool((np.abs(xywh) <= FAR).all())
        well = well and category_ids.issuperset(category_id.tolist()) and {0, 1}.issuperset(crowd.tolist())
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        well = False
    if not well:
        raise _first_bad_annotation(path, annotations, index_of, category_ids)
    size = np.array([(image['width'], image['height']) for image in images], dtype=np.float32).reshape(-1, 2)[
        image_index
    ]
    boxes = xywh.astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.reshape(-1, 2, 2).clip(0, size[:, None]).reshape(-1, 4)
    return CocoAnnotations(images, categories, boxes, image_index, category_id.astype(np.int64), crowd.astype(bool))


def load_sections(path: str | Path) -> dict[str, list]:
    """The three lists of an annotation file, without masks; what stands in them is not looked at.

    Raises:
        DataError: the file cannot be read, is not JSON, or lacks one of the lists.
    """
    try:
        with open(path, encoding='utf-8') as file, _no_garbage_collection():
            content = json.load(file, object_hook=_without_masks)
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}') from None
    except (ValueError, RecursionError) as error:
        raise DataError(f'{path} is not JSON ({error}): {LAYOUT}') from None
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
            raise DataError(f'{where} repeats the id {image["id"]}: every image needs an id of its own')
        seen.add(image['id'])
    return sorted(images, key=lambda image: image['id'])


def _categories(path: str | Path, categories: list) -> dict[str, int]:
    seen: dict[str, int] = {}
    for index, category in enumerate(categories):
        where = f'{path}: categories[{index}]'
        check_category(where, category)
        if category['name'] in seen or category['id'] in seen.values():
            raise DataError(
                f'{where} repeats the name {category["name"]!r} or the id {category["id"]}: both must be unique'
            )
        seen[category['name']] = category['id']
    if not seen:
        raise DataError(
            f'{path} has no category: categories needs one item for every class, {{"id": 1, "name": "..."}}'
        )
    return dict(sorted(seen.items(), key=lambda item: item[1]))


def _first_bad_annotation(path: str | Path, annotations: list, image_ids: Any, category_ids: set[int]) -> DataError:
    for index, annotation in enumerate(annotations):
        where = f'{path}: annotations[{index}]'
        try:
            check_annotation(where, annotation)
        except DataError as error:
            return error
        name = f'{where} (id {annotation.get("id")})'
        if annotation['image_id'] not in image_ids:
            return DataError(f'{name} has image_id {annotation["image_id"]}, which no item of images has')
        if annotation['category_id'] not in category_ids:
            return DataError(f'{name} has category_id {annotation["category_id"]}, which no item of categories has')
    raise AssertionError('every annotation passes one by one, but not together')


def check_image(where: str, image: Any) -> None:
    """Raise DataError, which begins with ``where``, unless ``image`` is an item of images."""
    _check(where, image, id=_is_int, file_name=_is_name, height=_is_side, width=_is_side)


def check_category(where: str, category: Any) -> None:
    """Raise DataError, which begins with ``where``, unless ``category`` is an item of categories."""
    _check(where, category, id=_is_int, name=_is_name)


def check_annotation(where: str, annotation: Any) -> None:
    """Raise DataError, which begins with ``where``, unless ``annotation`` is an item of annotations."""
    _check(where, annotation, image_id=_is_int, category_id=_is_int, bbox=_is_xywh)
    _check(where, {'iscrowd': 0, **annotation}, iscrowd=_is_flag)


def check_evaluated(where: str, annotation: Any) -> None:
    """Raise DataError, which begins with ``where``, unless ``annotation`` has what evaluation needs beside the box."""
    _check(where, annotation, id=_is_int, area=_is_area)


def _is_int(value: Any) -> str:
    fits = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_ID
    return '' if fits else 'an integer of 64 bits'


def _is_side(value: Any) -> str:
    return '' if not _is_int(value) and 0 < value <= FAR else 'a positive number of pixels'


def _is_name(value: Any) -> str:
    return '' if isinstance(value, str) and value else 'a text'


def _is_flag(value: Any) -> str:
    return '' if isinstance(value, (int, float)) and value in (0, 1) else '0 or 1'


def _is_area(value: Any) -> str:
    return '' if isinstance(value, (int, float)) and abs(value) <= FAR**2 else 'a finite number of square pixels'


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
