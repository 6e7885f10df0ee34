"""Reading a COCO annotation file: its three lists, in pieces, so that little of it is in memory at a time."""

import gc
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from frdet.datasets.coco_rows import CocoRows
from frdet.datasets.json_stream import stream_json
from frdet.datasets.masks import pack_mask
from frdet.datasets.mending import box_of_mask, foreign
from frdet.errors import DataError

SECTIONS = ('images', 'annotations', 'categories')
LAYOUT = 'expected COCO\'s object detection layout, {"images": [...], "annotations": [...], "categories": [...]}'

IMAGE_FIELDS = ('id', 'file_name', 'height', 'width')
IN_ROWS = object()  # stands for an annotation that is in a ``CocoRows``

#: First bytes of archives that may hold an annotation file, and the names of these archives.
ARCHIVES = {b'PK\x03\x04': 'a ZIP archive', b'BZh': 'compressed by bzip2', b'\xfd7zXZ': 'compressed by xz'}


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
