"""COCO's object detection data set: its annotation file as arrays, or one sentence about the first mistake in it."""

import gc
import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from frdet.datasets.annotations import Annotations, Id, check_annotation, check_category, checked_images, id_key, short
from frdet.datasets.base import DetDataset
from frdet.datasets.coco_rows import CocoRows
from frdet.datasets.json_stream import stream_json
from frdet.datasets.masks import as_coco, pack_mask
from frdet.datasets.mending import box_of_mask, foreign, leave_out_parent, mend
from frdet.errors import DataError
from frdet.registry import DATASETS

SECTIONS = ('images', 'annotations', 'categories')
LAYOUT = 'expected COCO\'s object detection layout, {"images": [...], "annotations": [...], "categories": [...]}'

IMAGE_FIELDS = ('id', 'file_name', 'height', 'width')
IN_ROWS = object()  # stands for an annotation that is in a ``CocoRows``

#: First bytes of archives that may hold an annotation file, and the names of these archives.
ARCHIVES = {b'PK\x03\x04': 'a ZIP archive', b'BZh': 'compressed by bzip2', b'\xfd7zXZ': 'compressed by xz'}


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


def _small_masks(with_masks: bool, item: dict) -> dict:
    """Drop or pack the masks while the file is read: they need most of its memory.

    A missing box becomes that of the mask. A mask that cannot be packed stays as it is, for the error that names it.
    """
    mask = item.pop('segmentation', None)
    if mask and not item.get('bbox') and (box := box_of_mask(mask)):
        item['bbox'] = box
    if mask and with_masks:
        try:
            item['segmentation'] = pack_mask(mask)
        except ValueError:
            item['segmentation'] = mask
    return item


def _slim(rows: CocoRows, with_masks: bool, item: dict) -> Any:
    """Move an annotation to ``rows`` if it fits; drop the fields of an image that are not read."""
    item = _small_masks(with_masks, item)
    mask = item.get('segmentation')
    if 'bbox' in item and (mask is None or isinstance(mask, bytes)) and rows.add(item):
        if rows.masks is not None:
            rows.masks.append(mask)
        return IN_ROWS
    if 'file_name' in item:
        return {field: item[field] for field in IMAGE_FIELDS if field in item}
    return item


def load_sections(path: str | Path, *, may_lack_annotations: bool = False, with_masks: bool = False) -> dict[str, Any]:
    """The three lists of an annotation file. Their items are not checked.

    Annotations that are all written as in COCO's own files are ``CocoRows``.

    Masks are dropped, or packed if ``with_masks``, see ``frdet.datasets.masks``.
    With ``may_lack_annotations``, annotations that are not there are an empty list, as of COCO's image_info files.

    The file may be in UTF-8, UTF-16 or UTF-32, with or without a byte order mark, and may be compressed by gzip.

    Raises:
        DataError: the file cannot be read, is not JSON, or lacks one of the lists.
    """
    content = _read_compact(path, with_masks)
    own = f'. It holds {words}' if (words := foreign(content)) else ''
    if not isinstance(content, dict):
        raise DataError(f'{path} holds a JSON {type(content).__name__}: {LAYOUT}{own}')
    missing = [name for name in SECTIONS if name not in content]
    if missing == ['annotations'] and may_lack_annotations:
        missing, content['annotations'] = [], []
    if missing == ['annotations']:
        raise DataError(
            f'{path} has no annotations, only images and categories: the images can be tested '
            '(tools/test.py --out results.json), but not trained on'
        )
    if missing:
        found = ', '.join(list(content)[:8]) or 'nothing'
        raise DataError(
            f'{path} is no COCO annotation file, it has no {" and no ".join(missing)} (found {found}): {LAYOUT}{own}'
        )
    for name in SECTIONS:
        if not isinstance(content[name], (list, CocoRows)):
            raise DataError(f'{path}: {name} is a {type(content[name]).__name__}: {LAYOUT}')
    return content


def _read_compact(path: str | Path, with_masks: bool) -> Any:
    """The content of a JSON file. Its annotations are ``CocoRows`` if each of them fits."""
    rows, content = CocoRows(), None
    rows.masks = [] if with_masks else None
    with suppress(ValueError, OSError, EOFError, zlib.error, RecursionError), no_search_for_cycles():
        content = stream_json(path, partial(_slim, rows, with_masks))
    annotations = (content or {}).get('annotations')
    if isinstance(annotations, list) and len(rows) == annotations.count(IN_ROWS) == len(annotations):
        return {**(content or {}), 'annotations': rows}
    if content is not None and not rows:
        return content
    del content, annotations  # the file is wrong, or an annotation is written otherwise than by COCO: all stay dicts
    return read_json(path, with_masks=with_masks)


def read_json(path: str | Path, *, with_masks: bool = False) -> Any:
    """The content of a JSON file, in any encoding that ``load_sections`` takes, with masks as there.

    Raises:
        DataError: the file cannot be read, or is not JSON.
    """
    text = _text(path)
    if not text.strip():
        raise DataError(f'{path} is empty: {LAYOUT}')
    try:
        with no_search_for_cycles():
            return json.loads(text, object_hook=partial(_small_masks, with_masks))
    except (ValueError, RecursionError) as error:
        several = ': it holds several values, one after another' if str(error).startswith('Extra data') else ''
        raise DataError(f'{path} is not JSON{several} ({error}): {LAYOUT}') from None


@contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """Millions of objects are made without a reference cycle. Searching for cycles would double the reading time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _text(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
        if data.startswith(b'\x1f\x8b'):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f'{path} is compressed by gzip and broken ({error}): write it again') from None
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
