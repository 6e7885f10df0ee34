"""Checking every image and box of a data set; of a COCO file every item, also those at which reading stops."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from frdet.datasets.annotations import CATEGORY_FIELDS, IMAGE_FIELDS, Id, check_fields, short
from frdet.datasets.base import DetDataset
from frdet.datasets.checking.findings import Findings
from frdet.datasets.coco import CocoDataset
from frdet.datasets.formats.coco import SECTIONS, check_annotation, load_sections
from frdet.errors import DataError

FEW = 10  # boxes that leave their images before these are called most
THIN, SMALL = 40, 8  # sides in a ratio, and pixels, of images of which a network sees next to nothing
TOLERANCE = 1.0  # pixels by which a box may leave its image; COCO's own are rounded to hundredths


class Box(NamedTuple):
    """A box [x, y, width, height] in pixels of ``image``, and its object's area; ``name`` and ``text`` are shown."""

    name: str
    text: str
    box: list[float]
    image: dict[str, Any]
    category: Any
    area: float | None
    ignored: bool


def check_annotations(dataset: DetDataset, findings: Findings) -> tuple[list[dict[str, Any]], str]:
    """Add all that is wrong with the annotations of ``dataset`` to ``findings``.

    Returns:
        The image records that are right, by their order in the file, and a count of what the annotations hold.
    """
    if isinstance(dataset, CocoDataset):
        return check_coco(dataset.ann_file, findings)
    try:
        content = dataset.annotations()
    except DataError as error:
        findings.add('unreadable annotation file', str(error))
        return [], 'nothing read'
    rows = zip(
        content.image_index.tolist(),
        content.category_index.tolist(),
        content.xywh.tolist(),
        content.area.tolist(),
        content.ignored.tolist(),
        strict=True,
    )
    _check_images(((short(image['file_name']), image) for image in content.images), findings)
    boxes = (
        Box(f'boxes[{k}]', f'[{x}, {y}, {x + w}, {y + h}]', [x, y, w, h], content.images[image], category, area, out)
        for k, (image, category, (x, y, w, h), area, out) in enumerate(rows)
    )
    _check_boxes(boxes, findings)
    sizes = (len(content.images), len(content.boxes), len(content.categories))
    return content.images, ', '.join(f'{size} {section}' for size, section in zip(sizes, SECTIONS, strict=True))


def check_coco(path: str | Path, findings: Findings) -> tuple[list[dict[str, Any]], str]:
    """``check_annotations`` of the COCO file at ``path``."""
    try:
        content = load_sections(path)
    except DataError as error:
        findings.add('unreadable annotation file', str(error))
        return [], 'nothing read'
    images: dict[Id, dict[str, Any]] = {}
    _check_images(_right_images(content['images'], images, findings), findings)
    categories = _categories(content['categories'], findings)
    _check_boxes(_right_boxes(content['annotations'], images, categories, findings), findings)
    return list(images.values()), ', '.join(f'{len(content[section])} {section}' for section in SECTIONS)


def _check_images(named: Iterable[tuple[str, dict[str, Any]]], findings: Findings) -> None:
    names: dict[str, Id] = {}
    for name, item in named:
        if item['file_name'] in names:
            findings.add(
                'repeated image', f'{name}: {short(item["file_name"])}, as id {short(names[item["file_name"]])}'
            )
        names.setdefault(item['file_name'], item['id'])
        sides = sorted((item['width'], item['height']))
        if sides[0] < SMALL or sides[1] > THIN * sides[0]:
            example = f'{short(item["file_name"])} (id {short(item["id"])}): {item["width"]}x{item["height"]}'
            findings.add('image that is hardly to be seen', example)


def _check_boxes(rows: Iterable[Box], findings: Findings) -> None:
    boxes, leaving, fractions, unlike = 0, 0, 0, 0
    seen: set[tuple] = set()
    for row in rows:
        boxes += 1
        leaving += _check_box(row, findings)
        fractions += max(map(abs, row.box)) <= 1 and min(row.image['width'], row.image['height']) > 1
        unlike += _check_area(row, findings)
        same = (row.image['id'], row.category, *row.box)
        if same in seen:
            findings.add('repeated box', f'{row.name}: {row.text} in image {short(row.image["id"])}')
        seen.add(same)
        if row.ignored:
            findings.add('ignored box', row.name)
    for kind, count, least in (
        ('most boxes leave their images', leaving, max(boxes / 2, FEW)),
        ('boxes of 0 to 1', fractions, boxes / 2),
        ('areas unlike their boxes', unlike, boxes / 2),
    ):
        if count > least:
            findings.add(kind, f'{count} of {boxes}')


def _right_images(
    items: list, images: dict[Id, dict[str, Any]], findings: Findings
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and record of each image that is right, which is added to ``images``."""
    for index, item in enumerate(items):
        name = _name(item, f'images[{index}]')
        try:
            check_fields(name, item, **IMAGE_FIELDS)
        except ValueError as error:
            findings.add('wrong image record', str(error))
            continue
        if item['id'] in images:
            findings.add('repeated image id', f'{name}: {short(item["file_name"])}')
            continue
        images[item['id']] = item
        yield name, item


def _right_boxes(
    items: list, images: dict[Id, dict[str, Any]], categories: set[Id], findings: Findings
) -> Iterator[Box]:
    seen: set[Any] = set()
    for index, item in enumerate(items):
        name = _name(item, f'annotations[{index}]')
        _check_id(item, name, seen, findings)
        if not _is_whole(item, name, findings):
            continue
        if item['category_id'] not in categories:
            findings.add('annotation of no category', f'{name}: category_id {item["category_id"]}')
        if item['image_id'] not in images:
            findings.add('annotation of no image', f'{name}: image_id {item["image_id"]}')
            continue
        image, box = images[item['image_id']], item['bbox']
        yield Box(name, f'bbox {box}', box, image, item['category_id'], item.get('area'), bool(item.get('ignore')))


def _categories(items: list, findings: Findings) -> set[Id]:
    ids: set[Id] = set()
    names: set[str] = set()
    for index, item in enumerate(items):
        name = _name(item, f'categories[{index}]')
        try:
            check_fields(name, item, **CATEGORY_FIELDS)
        except ValueError as error:
            findings.add('wrong category record', str(error))
            continue
        if item['id'] in ids or item['name'] in names:
            findings.add('repeated category', f'{name}: {short(item["name"])}')
        ids.add(item['id'])
        names.add(item['name'])
    if not items:
        findings.add('wrong category record', 'categories is empty')
    return ids


def _check_id(item: Any, name: str, seen: set[Any], findings: Findings) -> None:
    """An annotation needs no id, but one of its own if it has any."""
    number = item.get('id') if isinstance(item, dict) else None
    if isinstance(number, (int, float, str)):
        if number in seen:
            findings.add('repeated annotation id', name)
        seen.add(number)


def _is_whole(item: Any, name: str, findings: Findings) -> bool:
    """Whether ``item`` has all that an annotation needs; what it lacks is added to ``findings``."""
    try:
        check_annotation(name, item)
    except ValueError as error:
        box = item.get('bbox') if isinstance(item, dict) else None
        numbers = isinstance(box, list) and any(isinstance(v, float) and not math.isfinite(v) for v in box)
        findings.add('box not finite' if numbers else 'wrong annotation', str(error))
        return False
    return True


def _check_box(row: Box, findings: Findings) -> bool:
    """Whether a box leaves its image by more than the tolerance."""
    x, y, width, height = row.box
    image = row.image
    example = f'{row.name}: {row.text} in image {image["id"]} of {image["width"]}x{image["height"]}'
    leaves = (
        min(x, y) < -TOLERANCE or x + width > image['width'] + TOLERANCE or y + height > image['height'] + TOLERANCE
    )
    if min(width, height) < 0:
        findings.add('box of negative size', example)
    elif x >= image['width'] or y >= image['height'] or x + width <= 0 or y + height <= 0:
        findings.add('box outside its image', example)
    elif min(width, height) == 0:
        findings.add('box without area', example)
    elif leaves:
        findings.add('box leaves its image', example)
    return leaves


def _check_area(row: Box, findings: Findings) -> bool:
    """Whether the area of an object is positive and cannot be that of a mask in its box."""
    area, own = row.area, row.box[2] * row.box[3]
    if area is None or math.isnan(area):
        return False
    if area <= 0:
        findings.add('area that is not positive', f'{row.name}: area {area}')
    return area > 0 and not 0.01 * own <= area <= 1.05 * own


def _name(item: Any, place: str) -> str:
    return f'{place} (id {short(item["id"])})' if isinstance(item, dict) and 'id' in item else place
