"""Checking every item of a COCO annotation file."""

import math
from pathlib import Path
from typing import Any

from frdet.datasets.checking.findings import Findings
from frdet.datasets.coco_json import SECTIONS, check_annotation, check_category, check_image, load_sections, short
from frdet.errors import DataError

FEW = 10  # boxes that leave their images before these are called most
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
    boxes, leaving = 0, 0
    seen: set[Any] = set()
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
        leaving += _check_box(item['bbox'], images[item['image_id']], name, findings)
    if leaving > max(boxes / 2, FEW):
        findings.add('most boxes leave their images', f'{leaving} of {boxes}')
    return list(images.values()), ', '.join(f'{len(content[section])} {section}' for section in SECTIONS)


def _images(items: list, findings: Findings) -> dict[int, dict[str, Any]]:
    images: dict[int, dict[str, Any]] = {}
    for index, item in enumerate(items):
        name = _name(item, f'images[{index}]')
        try:
            check_image(name, item)
        except DataError as error:
            findings.add('wrong image record', str(error))
            continue
        if item['id'] in images:
            findings.add('repeated image id', f'{name}: {short(item["file_name"])}')
        else:
            images[item['id']] = item
    return images


def _categories(items: list, findings: Findings) -> set[int]:
    ids: set[int] = set()
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


def _name(item: Any, place: str) -> str:
    return f'{place} (id {short(item["id"])})' if isinstance(item, dict) and 'id' in item else place
