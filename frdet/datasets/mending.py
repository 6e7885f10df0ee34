"""What labelling tools write into COCO's files otherwise than COCO does, where its meaning is certain."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from frdet.datasets.annotations import Id, image_size
from frdet.datasets.locating import locate
from frdet.progress import track

#: Keys that only one tool writes -> how to get COCO's file from that tool.
TOOLS = {
    '_via_img_metadata': 'the VGG Image Annotator: choose Annotation, Export Annotations (COCO format)',
    'regions': 'the VGG Image Annotator: choose Annotation, Export Annotations (COCO format)',
    'shapes': 'LabelMe: convert its folder by labelme2coco of PyPI',
    'completions': 'Label Studio: export as COCO, or as YOLO with images',
    'annotations.result': 'Label Studio: export as COCO, or as YOLO with images',
    'assets': 'VoTT: export as Pascal VOC or CSV',
}


def foreign(content: Any) -> str:
    """What the JSON ``content`` of a tool is, and how this tool writes COCO's layout; '' if it is not known."""
    items = list(content.values()) if isinstance(content, dict) else content
    first = items[0] if isinstance(items, list) and items else None
    for keys in (content, first):
        found = [words for key, words in TOOLS.items() if _has(keys, *key.split('.'))]
        if found:
            return f'labels of {found[0]}'
    return ''


def _has(item: Any, key: str, inner: str = '') -> bool:
    if not isinstance(item, dict) or key not in item:
        return False
    value = item[key]
    return not inner or (isinstance(value, list) and bool(value) and _has(value[0], inner))


def leave_out_parent(content: dict[str, Any]) -> list[str]:
    """Drop Roboflow's parent of all categories, which is no class: it has id 0, the other ones name it, no box has it.

    Returns:
        A note for the log, if there is such a category.
    """
    categories = [item for item in content['categories'] if isinstance(item, dict)]
    parent = next((item for item in categories if item.get('id') in (0, '0')), None)
    others = [item for item in categories if item is not parent]
    if parent is None or not others or any(item.get('supercategory') != parent.get('name') for item in others):
        return []
    used = (item.get('category_id') for item in content['annotations'] if isinstance(item, dict))
    if any(number in (0, '0') for number in used):
        return []
    content['categories'] = [item for item in content['categories'] if item is not parent]
    return [f'The category {parent["name"]!r} with id 0 is left out: it is the parent of all others and has no box']


def mend(content: dict[str, Any], folder: str | Path | None) -> None:
    """Change what tools write otherwise.

    - ``image_id`` and ``category_id`` as text where the ids are numbers, or the other way round
    - ``iscrowd`` null
    - images without a size, or with 0: it is read from the image in ``folder``; None reads no image
    """
    content['annotations'] = list(content['annotations'])  # so that items of a ``CocoRows`` can be changed
    annotations = [item for item in content['annotations'] if isinstance(item, dict)]
    for field, section in (('image_id', 'images'), ('category_id', 'categories')):
        _match_ids(annotations, field, content[section])
    for annotation in annotations:
        if annotation.get('iscrowd', 0) is None:
            annotation['iscrowd'] = 0
    if folder is not None:
        _add_sizes([item for item in content['images'] if isinstance(item, dict)], str(folder))


def _match_ids(annotations: Iterable[dict], field: str, section: list) -> None:
    ids = {item['id'] for item in section if isinstance(item, dict) and isinstance(item.get('id'), (int, float, str))}
    same: dict[str, list[Id]] = {}
    for one in ids:
        same.setdefault(_written(one), []).append(one)
    for annotation in annotations:
        value = annotation.get(field)
        if isinstance(value, (int, float, str)) and value not in ids:
            near = same.get(_written(value), [])
            annotation[field] = near[0] if len(near) == 1 else value


def _written(value: Id | float) -> str:
    """The same text for 3, 3.0, '3' and '003'."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    return text.lstrip('0') or '0' if text.isdecimal() else text


def _add_sizes(images: list[dict], folder: str) -> None:
    lacking = [item for item in images if not item.get('width') or not item.get('height')]
    lacking = [item for item in lacking if isinstance(item.get('file_name'), str)]
    located = locate([item['file_name'] for item in lacking], folder)
    pairs = zip(lacking, located.names, strict=True)
    for item, name in track(pairs, 'Reading sizes of images', total=len(lacking)):
        try:
            item['height'], item['width'] = image_size(os.path.join(folder, name))
        except ValueError:
            continue  # it stays without a size, which the reader names


def box_of_mask(mask: Any) -> list[float] | None:
    """The box [x, y, width, height] around a mask, polygons or run lengths; None if it is no mask."""
    try:
        if isinstance(mask, dict):
            return _box_of_runs(mask['counts'], *mask['size'])
        polygons = mask if isinstance(mask[0], list) else [mask]
        points = np.concatenate([np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons])
        return [*points.min(axis=0).tolist(), *np.ptp(points, axis=0).tolist()]
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        return None


def _box_of_runs(counts: Any, height: int, width: int) -> list[float] | None:
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        return None
    if isinstance(counts, str):
        # pycocotools reads on behind a text whose last number does not end.
        if not re.fullmatch('[0-o]*[0-O]', counts):
            return None
        return coco_mask.toBbox({'size': [height, width], 'counts': counts.encode()}).tolist()
    return coco_mask.toBbox(coco_mask.frPyObjects({'size': [height, width], 'counts': counts}, height, width)).tolist()
