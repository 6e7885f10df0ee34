"""Checking every item of a COCO annotation file."""

import math
from pathlib import Path
from typing import Any

from frdet.datasets.checking.findings import Findings
from frdet.datasets.coco_json import SECTIONS, Id, check_annotation, check_category, check_image, load_sections, short
from frdet.errors import DataError

FEW = 10  # boxes that leave their images before these are called most
THIN, SMALL = 40, 8  # sides in a ratio, and pixels, of images of which a network sees next to nothing
TOLERANCE = 1.0  # pixels by which a box may leave its image; COCO's own are rounded to hundredths


def check_annotations(path: str | Path, findings: Findings) -> tuple[list[dict[str, Any]], str]:
    """Add all that is wrong with the annotation file at ``path`` to ``findings``.

    Returns:
        The image records that are right, by their order in the file, and a count of what the file holds.
    """
    try:
        content = load_sections(path)
    except DataError as error:
        findings.add('unreadable annotation file', str(error))
        return [], 'nothing read'
    images = _images(content['images'], findings)
    categories = _categories(content['categories'], findings)
    boxes, leaving, fractions, unlike = 0, 0, 0, 0
    seen: set[Any] = set()
    places: set[tuple] = set()
    for index, item in enumerate(content['annotations']):
        name = _name(item, f'annotations[{index}]')
        _check_id(item, name, seen, findings)
        if not _is_whole(item, name, findings):
            continue
        if item['category_id'] not in categories:
            findings.add('annotation of no category', f'{name}: category_id {item["category_id"]}')
        if item['image_id'] not in images:
            findings.add('annotation of no image', f'{name}: image_id {item["image_id"]}')
            continue
        boxes += 1
        image = images[item['image_id']]
        leaving += _check_box(item['bbox'], image, name, findings)
        fractions += max(map(abs, item['bbox'])) <= 1 and min(image['width'], image['height']) > 1
        unlike += _check_area(item, name, findings)
        place = (item['image_id'], item['category_id'], *item['bbox'])
        if place in places:
            findings.add('repeated box', f'{name}: bbox {item["bbox"]} in image {short(item["image_id"])}')
        places.add(place)
        if item.get('ignore'):
            findings.add('ignored box', name)
    for kind, count, least in (
        ('most boxes leave their images', leaving, max(boxes / 2, FEW)),
        ('boxes of 0 to 1', fractions, boxes / 2),
        ('areas unlike their boxes', unlike, boxes / 2),
    ):
        if count > least:
            findings.add(kind, f'{count} of {boxes}')
    return list(images.values()), ', '.join(f'{len(content[section])} {section}' for section in SECTIONS)


def _images(items: list, findings: Findings) -> dict[Id, dict[str, Any]]:
    images: dict[Id, dict[str, Any]] = {}
    names: dict[str, Id] = {}
    for index, item in enumerate(items):
        name = _name(item, f'images[{index}]')
        try:
            check_image(name, item)
        except DataError as error:
            findings.add('wrong image record', str(error))
            continue
        if item['id'] in images:
            findings.add('repeated image id', f'{name}: {short(item["file_name"])}')
            continue
        images[item['id']] = item
        if item['file_name'] in names:
            findings.add(
                'repeated image', f'{name}: {short(item["file_name"])}, as id {short(names[item["file_name"]])}'
            )
        names.setdefault(item['file_name'], item['id'])
        sides = sorted((item['width'], item['height']))
        if sides[0] < SMALL or sides[1] > THIN * sides[0]:
            example = f'{short(item["file_name"])} (id {short(item["id"])}): {item["width"]}x{item["height"]}'
            findings.add('image that is hardly to be seen', example)
    return images


def _categories(items: list, findings: Findings) -> set[Id]:
    ids: set[Id] = set()
    names: set[str] = set()
    for index, item in enumerate(items):
        name = _name(item, f'categories[{index}]')
        try:
            check_category(name, item)
        except DataError as error:
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
    except DataError as error:
        box = item.get('bbox') if isinstance(item, dict) else None
        numbers = isinstance(box, list) and any(isinstance(v, float) and not math.isfinite(v) for v in box)
        findings.add('box not finite' if numbers else 'wrong annotation', str(error))
        return False
    return True


def _check_box(box: list[float], image: dict[str, Any], name: str, findings: Findings) -> bool:
    """Whether ``box``, xywh, leaves ``image`` by more than the tolerance."""
    x, y, width, height = box
    example = f'{name}: bbox {box} in image {image["id"]} of {image["width"]}x{image["height"]}'
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


def _check_area(item: dict[str, Any], name: str, findings: Findings) -> bool:
    """Whether the area of ``item`` is positive and cannot be that of a mask in its box."""
    area, own = item.get('area'), item['bbox'][2] * item['bbox'][3]
    if area is None or math.isnan(area):
        return False
    if area <= 0:
        findings.add('area that is not positive', f'{name}: area {area}')
    return area > 0 and not 0.01 * own <= area <= 1.05 * own


def _name(item: Any, place: str) -> str:
    return f'{place} (id {short(item["id"])})' if isinstance(item, dict) and 'id' in item else place
