"""Checking every image and box of a data set; of a COCO file also the items that stop the reader."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from frdet.datasets.annotations import Id, check_annotation, check_category, check_image, short
from frdet.datasets.base import DetDataset
from frdet.datasets.checking import Findings
from frdet.datasets.coco import SECTIONS, CocoDataset, load_sections
from frdet.datasets.mending import leave_out_parent, mend
from frdet.errors import DataError

FEW = 10  # so many boxes may leave their images, even if they are most of all boxes
THIN, SMALL = 40, 8  # a network sees hardly anything of an image with this ratio of the sides, or with fewer pixels
TOLERANCE = 1.0  # a box may leave its image by so many pixels; COCO's own boxes are rounded to hundredths
#: Section of a COCO file -> the check of an item, and the kind of finding if it fails.
CHECKS: dict[str, tuple[Callable[[str, Any], None], str]] = {
    'images': (check_image, 'wrong image record'),
    'categories': (check_category, 'wrong category record'),
    'annotations': (check_annotation, 'wrong annotation'),
}


class Box(NamedTuple):
    """A box [x, y, width, height] in pixels of ``image``. ``name`` and ``text`` show it; ``area`` is its object's."""

    name: str
    text: str
    box: list[float]
    image: dict[str, Any]
    category: Any
    area: float | None
    ignored: bool


def check_annotations(dataset: DetDataset, findings: Findings) -> tuple[list[dict[str, Any]], str]:
    """Add all mistakes in the annotations of ``dataset`` to ``findings``.

    Returns:
        The correct image records in the order of the file, and a text that counts the content of the annotations.
    """
    try:
        if isinstance(dataset, CocoDataset):
            sections = load_sections(dataset.ann_file)
            for note in leave_out_parent(sections):
                findings.add('category left out', note)
            mend(sections, dataset.data_prefix['img'])
            return _check_coco(sections, findings)
        content = dataset.annotations()
    except DataError as error:
        findings.add('unreadable annotation file', str(error))
        return [], 'nothing read'
    columns = (content.image_index, content.category_index, content.xywh, content.area, content.ignored)
    rows = enumerate(zip(*(column.tolist() for column in columns), strict=True))
    _check_images(((short(image['file_name']), image) for image in content.images), findings)
    boxes = (
        Box(f'boxes[{k}]', f'[{x}, {y}, {x + w}, {y + h}]', [x, y, w, h], content.images[image], category, area, out)
        for k, (image, category, (x, y, w, h), area, out) in rows
    )
    _check_boxes(boxes, findings)
    return content.images, _counts(content.images, content.boxes, content.categories)


def _check_coco(content: dict[str, list], findings: Findings) -> tuple[list[dict[str, Any]], str]:
    images: dict[Id, dict[str, Any]] = {}
    named = []
    for name, item in _correct(content, 'images', findings):
        if images.setdefault(item['id'], item) is item:
            named.append((name, item))
        else:
            findings.add('repeated image id', f'{name}: {short(item["file_name"])}')
    _check_images(named, findings)
    categories: set[Id] = set()
    names: set[str] = set()
    for name, item in _correct(content, 'categories', findings):
        if item['id'] in categories or item['name'] in names:
            findings.add('repeated category', f'{name}: {short(item["name"])}')
        categories.add(item['id'])
        names.add(item['name'])
    if not content['categories']:
        findings.add('wrong category record', 'categories is empty')
    _check_boxes(_boxes(content, images, categories, findings), findings)
    return list(images.values()), _counts(*(content[section] for section in SECTIONS))


def _counts(*sections: Any) -> str:
    return ', '.join(f'{len(items)} {section}' for items, section in zip(sections, SECTIONS, strict=True))


def _correct(content: dict[str, list], section: str, findings: Findings) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the content of each correct item. The other items are added to ``findings``."""
    check, wrong = CHECKS[section]
    for index, item in enumerate(content[section]):
        has_id = isinstance(item, dict) and 'id' in item
        name = f'{section}[{index}] (id {short(item["id"])})' if has_id else f'{section}[{index}]'
        try:
            check(name, item)
        except ValueError as error:
            box = item.get('bbox') if section == 'annotations' and isinstance(item, dict) else None
            is_nan = isinstance(box, list) and any(isinstance(v, float) and not math.isfinite(v) for v in box)
            findings.add('box not finite' if is_nan else wrong, str(error))
        else:
            yield name, item


def _boxes(
    content: dict[str, list], images: dict[Id, dict[str, Any]], categories: set[Id], findings: Findings
) -> Iterator[Box]:
    seen: set[Any] = set()
    for name, item in _correct(content, 'annotations', findings):
        if isinstance(number := item.get('id'), (int, float, str)):  # an annotation needs no id
            if number in seen:
                findings.add('repeated annotation id', name)
            seen.add(number)
        if item['category_id'] not in categories:
            findings.add('annotation of no category', f'{name}: category_id {item["category_id"]}')
        if item['image_id'] not in images:
            findings.add('annotation of no image', f'{name}: image_id {item["image_id"]}')
            continue
        image, box = images[item['image_id']], item['bbox']
        yield Box(name, f'bbox {box}', box, image, item['category_id'], item.get('area'), bool(item.get('ignore')))


def _check_images(named: Iterable[tuple[str, dict[str, Any]]], findings: Findings) -> None:
    ids: dict[str, Id] = {}
    for name, item in named:
        file_name = short(item['file_name'])
        if item['file_name'] in ids:
            findings.add('repeated image', f'{name}: {file_name}, as id {short(ids[item["file_name"]])}')
        ids.setdefault(item['file_name'], item['id'])
        sides = sorted((item['width'], item['height']))
        if sides[0] < SMALL or sides[1] > THIN * sides[0]:
            example = f'{file_name} (id {short(item["id"])}): {item["width"]}x{item["height"]}'
            findings.add('image that is hardly to be seen', example)


def _check_boxes(rows: Iterable[Box], findings: Findings) -> None:
    boxes = 0
    counts: Counter[str] = Counter()
    seen: set[tuple] = set()
    for row in rows:
        boxes += 1
        (x, y, w, h), width, height = row.box, row.image['width'], row.image['height']
        own = w * h
        example = f'{row.name}: {row.text} in image {row.image["id"]} of {width}x{height}'
        leaves = min(x, y) < -TOLERANCE or x + w > width + TOLERANCE or y + h > height + TOLERANCE
        if min(w, h) < 0:
            findings.add('box of negative size', example)
        elif x >= width or y >= height or x + w <= 0 or y + h <= 0:
            findings.add('box outside its image', example)
        elif min(w, h) == 0:
            findings.add('box without area', example)
        elif leaves:
            findings.add('box leaves its image', example)
        counts['most boxes leave their images'] += leaves
        counts['boxes of 0 to 1'] += max(map(abs, row.box)) <= 1 and min(width, height) > 1
        if row.area is not None and row.area <= 0:
            findings.add('area that is not positive', f'{row.name}: area {row.area}')
        elif row.area is not None and not math.isnan(row.area):  # a mask in the box cannot have another area
            counts['areas unlike their boxes'] += not 0.01 * own <= row.area <= 1.05 * own
        same = (row.image['id'], row.category, *row.box)
        if same in seen:
            findings.add('repeated box', f'{row.name}: {row.text} in image {short(row.image["id"])}')
        seen.add(same)
        if row.ignored:
            findings.add('ignored box', row.name)
    for kind, count in counts.items():
        if count > max(boxes / 2, FEW if kind == 'most boxes leave their images' else 0):
            findings.add(kind, f'{count} of {boxes}')
