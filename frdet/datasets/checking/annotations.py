"""Checking every image and box of a data set; of a COCO file also the items that stop the reader."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.annotations import (
    Annotations,
    Id,
    check_annotation,
    check_category,
    check_image,
    check_rle_size,
    short,
)
from frdet.datasets.base import DetDataset
from frdet.datasets.checking import Findings
from frdet.datasets.checking.boxes import BoxCheck
from frdet.datasets.coco import CocoDataset, annotations_of
from frdet.datasets.coco_file import SECTIONS, load_sections
from frdet.datasets.coco_rows import CocoRows
from frdet.datasets.locating import locate
from frdet.datasets.masks import pack_mask
from frdet.datasets.mending import leave_out_parent, mend
from frdet.errors import DataError

THIN, SMALL = 40, 8  # a network sees hardly anything of an image with this ratio of the sides, or with fewer pixels
#: Section of a COCO file -> the check of an item, and the kind of finding if it fails.
CHECKS: dict[str, tuple[Callable[[str, Any], None], str]] = {
    'images': (check_image, 'wrong image record'),
    'categories': (check_category, 'wrong category record'),
    'annotations': (check_annotation, 'wrong annotation'),
}


class Checked(NamedTuple):
    """What is right in the annotations of a data set.

    Attributes:
        images: the correct image records in the order of the file.
        counts: a text that counts the content of the annotations.
        boxes: number of objects of each class.
    """

    images: list[dict[str, Any]]
    counts: str
    boxes: dict[str, int]


def check_annotations(dataset: DetDataset, findings: Findings) -> Checked:
    """Add all mistakes in the annotations of ``dataset`` to ``findings``."""
    try:
        if isinstance(dataset, CocoDataset):
            sections, folder = (
                load_sections(dataset.ann_file, with_masks=dataset.with_masks),
                dataset.data_prefix['img'],
            )
            for note in leave_out_parent(sections):
                findings.add('category left out', note)
            return _check_coco(sections, folder, findings)
        dataset.on_mistake = findings.add
        content = dataset.read_all()
    except DataError as error:
        findings.add('unreadable annotation file', str(error))
        return Checked([], 'nothing read', {})
    finally:
        dataset.on_mistake = None
    _check_images(((short(image['file_name']), image) for image in content.images), findings)
    BoxCheck(content, names_of(content), dataset.data_prefix['img'], findings).run()
    counts = _counts(content.images, content.boxes, content.categories)
    return Checked(content.images, counts, count_objects(content))


def names_of(content: Annotations) -> Callable[[int], tuple[str, str]]:
    """The name of row k in messages, and its box as text."""

    def name(k: int) -> tuple[str, str]:
        x, y, w, h = (round(v, 2) for v in content.xywh[k].tolist())
        return f'boxes[{k}]', f'[{x:g}, {y:g}, {x + w:g}, {y + h:g}]'

    return name


def count_objects(content: Annotations) -> dict[str, int]:
    """The number of objects of each class; crowds and ignored ones are none."""
    objects = content.category_index[~content.crowd & ~content.ignored]
    return dict(zip(content.categories, np.bincount(objects, minlength=len(content.categories)).tolist(), strict=True))


def _check_coco(sections: dict[str, Any], folder: str, findings: Findings) -> Checked:
    content = None
    with suppress(ValueError):  # if the reader takes all items, none is checked alone, which is much slower
        content = annotations_of(*(sections[section] for section in SECTIONS))
    if content is None:
        mend(sections, folder)
    images: dict[Id, dict[str, Any]] = {}
    named = []
    for index in _correct(sections, 'images', findings):
        item = sections['images'][index]
        if images.setdefault(item['id'], item) is item:
            named.append((index, item))
        else:
            findings.add('repeated image id', f'{_name(sections, "images", index)}: {short(item["file_name"])}')
    _check_images(((_name(sections, 'images', index), item) for index, item in named), findings)
    categories: dict[Id, dict[str, Any]] = {}
    for index in _correct(sections, 'categories', findings):
        item = sections['categories'][index]
        if item['id'] in categories or item['name'] in {other['name'] for other in categories.values()}:
            findings.add('repeated category', f'{_name(sections, "categories", index)}: {short(item["name"])}')
        else:
            categories[item['id']] = item
    if not sections['categories']:
        findings.add('wrong category record', 'categories is empty')
    items = sections['annotations']
    rows: Sequence[int] = range(len(items))
    if content is None:
        rows = list(_correct(sections, 'annotations', findings))
    _check_ids(sections, rows, findings)
    if content is None:
        rows = list(_boxes(sections, rows, images, categories, findings))
        if categories:
            kept = [items[index] for index in rows]
            content = annotations_of(list(images.values()), kept, list(categories.values()))
    if content is not None:
        for image, name in zip(content.images, _files(content, folder), strict=True):
            image['file_name'] = name
        in_file = partial(_name, sections, 'annotations')
        BoxCheck(content, lambda k: (in_file(rows[k]), f'bbox {items[rows[k]]["bbox"]}'), folder, findings).run()
    boxes = {} if content is None else count_objects(content)
    return Checked(list(images.values()), _counts(*(sections[section] for section in SECTIONS)), boxes)


def _files(content: Annotations, folder: str) -> list[str]:
    names = [image['file_name'] for image in content.images]
    return locate(names, folder).names if Path(folder).is_dir() else names


def _counts(*sections: Any) -> str:
    return ', '.join(f'{len(items)} {section}' for items, section in zip(sections, SECTIONS, strict=True))


def _name(content: dict[str, list], section: str, index: int) -> str:
    item = content[section][index]
    has_id = isinstance(item, dict) and 'id' in item
    return f'{section}[{index}] (id {short(item["id"])})' if has_id else f'{section}[{index}]'


def _correct(content: dict[str, list], section: str, findings: Findings) -> Iterator[int]:
    """The positions of the correct items. The other items are added to ``findings``."""
    check, wrong = CHECKS[section]
    for index, item in enumerate(content[section]):
        try:
            check('', item)
        except ValueError as error:
            box = item.get('bbox') if section == 'annotations' and isinstance(item, dict) else None
            is_nan = isinstance(box, list) and any(isinstance(v, float) and not math.isfinite(v) for v in box)
            findings.add('box not finite' if is_nan else wrong, f'{_name(content, section, index)}{error}')
        else:
            yield index


def _check_ids(content: dict[str, Any], rows: Iterable[int], findings: Findings) -> None:
    items = content['annotations']
    if isinstance(items, CocoRows) and len(np.unique(items.table['id'])) == len(items):
        return
    seen: set[Any] = set()
    for index in rows:
        if isinstance(number := items[index].get('id'), (int, float, str)):  # an annotation needs no id
            if number in seen:
                findings.add('repeated annotation id', _name(content, 'annotations', index))
            seen.add(number)


def _boxes(
    content: dict[str, Any], rows: Iterable[int], images: dict[Id, Any], categories: dict[Id, Any], findings: Findings
) -> Iterator[int]:
    """Those ``rows`` of the annotations that have an image and a category."""
    for index in rows:
        item, name = content['annotations'][index], _name(content, 'annotations', index)
        if is_lost := item['category_id'] not in categories:
            findings.add('annotation of no category', f'{name}: category_id {item["category_id"]}')
        if item['image_id'] not in images:
            findings.add('annotation of no image', f'{name}: image_id {item["image_id"]}')
        elif not is_lost:
            try:
                check_rle_size(pack_mask(item.get('segmentation')), images[item['image_id']])
                yield index
            except ValueError as error:
                findings.add('wrong annotation', f'{name}.segmentation {error}')


def _check_images(named: Iterable[tuple[str, dict[str, Any]]], findings: Findings) -> None:
    ids: dict[str, Id] = {}
    for name, item in named:
        if item['file_name'] in ids:
            findings.add('repeated image', f'{name}: {short(item["file_name"])}, as id {short(ids[item["file_name"]])}')
        ids.setdefault(item['file_name'], item['id'])
        sides = sorted((item['width'], item['height']))
        if sides[0] < SMALL or sides[1] > THIN * sides[0]:
            example = f'{short(item["file_name"])} (id {short(item["id"])}): {item["width"]}x{item["height"]}'
            findings.add('image that is hardly to be seen', example)
