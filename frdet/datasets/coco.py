"""COCO's object detection data set: its annotation file as arrays, or one sentence about the first mistake in it."""

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from frdet.datasets.annotations import Annotations, Id, check_annotation, check_category, checked_images, id_key, short
from frdet.datasets.base import DetDataset
from frdet.datasets.coco_file import SECTIONS, load_sections
from frdet.datasets.coco_rows import CocoRows
from frdet.datasets.masks import as_coco
from frdet.datasets.mending import leave_out_parent, mend
from frdet.errors import DataError
from frdet.registry import DATASETS


@DATASETS.register_module()
class CocoDataset(DetDataset):
    """Images with the boxes of a COCO annotation file, in the order of image ids; classes in the order of category ids.

    Objects with ``"ignore": 1`` are not trained on. Masks are those of ``segmentation``, polygons or RLE. Arguments and
    records are those of ``DetDataset``.
    """

    @property
    def how_to_get(self) -> str:
        """How to get COCO, if the file is named like one of COCO's."""
        if not re.fullmatch(r'(instances|image_info)_(train|val|test|test-dev)2017\.json', Path(self.ann_file).name):
            return ''
        return (
            'Get COCO with `python tools/download_coco.py`, or set FRDET_DATA_ROOT to a folder in its layout '
            '(annotations/instances_val2017.json, val2017/)'
        )

    def read(self) -> Annotations:
        """Read the annotation file."""
        content = load_sections(self.ann_file, may_lack_annotations=self.test_mode, with_masks=self.with_masks)
        self.notes += [f'{self.ann_file}: {note}' for note in leave_out_parent(content)]
        return _read(self.ann_file, content, self.data_prefix['img'])


def read_coco(path: str | Path, folder: str | Path | None = None, *, with_masks: bool = False) -> Annotations:
    """Read and check the annotation file at ``path``. Images are sorted by id, classes by category id.

    Ids of annotations are not checked, because only tables name them. What tools write otherwise is mended where its
    meaning is certain, see ``mending.py``.

    Args:
        path: the file.
        folder: folder of the images, which have the sizes that the file lacks.
        with_masks: read the masks, too.

    Raises:
        DataError: the file is not JSON, is not in COCO's layout, or has a wrong item, which the message names.
    """
    content = load_sections(path, with_masks=with_masks)
    leave_out_parent(content)
    return _read(path, content, folder)


def _read(path: str | Path, content: dict[str, Any], folder: str | Path | None) -> Annotations:
    with suppress(ValueError):  # nothing is to be mended in COCO's own files, which are large
        return annotations_of(**{section: content[section] for section in SECTIONS})
    mend(content, folder)
    try:
        return annotations_of(**{section: content[section] for section in SECTIONS})
    except ValueError as error:
        raise DataError(f'{path}: {error}') from None


def annotations_of(images: list, annotations: Sequence, categories: list) -> Annotations:
    """The three lists of an annotation file as arrays. A ValueError names the first wrong item."""
    images = sorted(checked_images(images), key=lambda image: id_key(image['id']))
    ids = _categories(categories)
    image_place = {image['id']: place for place, image in enumerate(images)}
    category_place = {cat_id: place for place, cat_id in enumerate(ids.values())}
    try:
        columns = _columns(annotations)
        return Annotations(
            images=images,
            categories=ids,
            image_index=np.array([image_place[number] for number in columns['image_id']]),
            category_index=np.array([category_place[number] for number in columns['category_id']]),
            xywh=columns['bbox'],
            crowd=columns['iscrowd'],
            ignored=columns['ignore'],
            area=columns['area'],
            ids=columns['id'],
            masks=columns['masks'],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        _check_annotations(annotations, image_place, category_place)
        raise


def _columns(annotations: Sequence) -> dict[str, Any]:
    """The fields of all annotations, as lists or arrays."""
    if isinstance(annotations, CocoRows):
        table = annotations.table
        ids = {field: table[field].tolist() for field in ('image_id', 'category_id')}
        return {
            'id': _ids(table['id']),
            **ids,
            **{field: table[field] for field in ('bbox', 'iscrowd', 'ignore', 'area')},
            'masks': annotations.masks,
        }
    masks = [a.get('segmentation') for a in annotations]
    return {
        'id': _ids([a.get('id') for a in annotations]),
        'image_id': [a['image_id'] for a in annotations],
        'category_id': [a['category_id'] for a in annotations],
        'bbox': np.array([a['bbox'] for a in annotations]),
        'iscrowd': np.array([a.get('iscrowd', 0) for a in annotations]),
        'ignore': np.array([0 if (v := a.get('ignore')) is None else v for a in annotations]),
        'area': np.array([math.nan if (v := a.get('area')) is None else v for a in annotations]),
        'masks': masks if any(masks) else None,
    }


def _ids(given: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    """The ids of annotations; None if they are no numbers or texts that tell all annotations apart."""
    if isinstance(given, np.ndarray):
        return given.copy() if len(np.unique(given)) == len(given) else None  # a view would keep the whole table
    told_apart = all(isinstance(one, (int, str)) for one in given) and len({str(one) for one in given}) == len(given)
    return np.array(given, dtype=object) if told_apart else None


def write_coco(content: Annotations, path: Path) -> None:
    """Write COCO's JSON, for tools that read no other format."""
    image_ids, category_ids = [image['id'] for image in content.images], list(content.categories.values())
    flags = content.crowd.astype(int), content.ignored.astype(int)
    columns = (content.image_index, content.category_index, content.xywh, content.area, *flags)
    masks = [None] * len(content.boxes) if content.masks is None else content.masks.tolist()
    ids = range(1, len(content.boxes) + 1) if content.ids is None else content.ids.tolist()
    rows = zip(ids, *(column.tolist() for column in columns), strict=True)
    annotations = [
        dict(id=k, image_id=image_ids[i], category_id=category_ids[c], bbox=box, area=area, iscrowd=crowd, ignore=out)
        for k, i, c, box, area, crowd, out in rows
    ]
    for annotation, mask in zip(annotations, masks, strict=True):
        if mask is not None:
            annotation['segmentation'] = as_coco(mask)
    categories = [{'id': number, 'name': name} for name, number in content.categories.items()]
    text = json.dumps({'images': content.images, 'annotations': annotations, 'categories': categories})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def _categories(categories: list) -> dict[str, Id]:
    seen: dict[str, Id] = {}
    for index, category in enumerate(categories):
        where = f'categories[{index}]'
        check_category(where, category)
        if category['name'] in seen or category['id'] in seen.values():
            raise ValueError(
                f'{where} repeats the name {category["name"]!r} or the id {short(category["id"])}: both must be unique'
            )
        seen[category['name']] = category['id']
    if not seen:
        raise ValueError('it has no category: categories needs one item for every class, {"id": 1, "name": "..."}')
    return dict(sorted(seen.items(), key=lambda item: id_key(item[1])))


def _check_annotations(annotations: Sequence, image_ids: dict[Id, int], category_ids: dict[Id, int]) -> None:
    """Raise ValueError for the first annotation that is wrong."""
    for index, annotation in enumerate(annotations):
        where = f'annotations[{index}]'
        check_annotation(where, annotation)
        for field, known, section in (('image_id', image_ids, 'images'), ('category_id', category_ids, 'categories')):
            if (value := annotation[field]) in known:
                continue
            name = f'{where} (id {short(annotation.get("id"))})'
            raise ValueError(f'{name} has {field} {short(value)}, which no item of {section} has')
