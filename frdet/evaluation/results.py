"""Detections from a results JSON: COCO's list, as `tools/test.py --out` and `tools/detect.py` write it."""

import json
import math
import operator
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.annotations import Id, check_fields, check_rle_size, is_id, is_xywh
from frdet.datasets.masks import box_of, pack_mask, unpack_mask
from frdet.errors import DataError
from frdet.evaluation.numbering import Detections
from frdet.evaluation.truth import Truth

FORM = 'expected COCO\'s results, [{"image_id": 1, "category_id": 1, "bbox": [x, y, width, height], "score": 0.9}]'
MASKS = 'for metric segm, every detection needs a segmentation, polygons or RLE; --metric bbox evaluates boxes alone'


class Row(NamedTuple):
    """A detection in an image."""

    xywh: list[float]
    score: float
    label: int
    mask: bytes | None


def read_results(
    path: str | Path,
    truth: Truth,
    classes: Sequence[str],
    positions: Collection[int],
    *,
    with_masks: bool = False,
    records: Sequence[dict[str, Any]] | None = None,
) -> tuple[list[Detections], str]:
    """The detections in every image at ``positions`` of the truth, also in those without a detection.

    ``records`` are those of ``load_results(path)``, if they are read already.

    A detection is in the image ``file_name`` if it has this key, otherwise in the image ``image_id``. Its class is
    ``category_name``, otherwise ``category_id``. Detections in other images of the truth, or of classes of the truth
    that are not in ``classes``, are left out; the second result says how many, or is empty.

    Raises:
        DataError: the file is no list of detections, or the truth lacks an image or a class of it; or, ``with_masks``,
            a detection has no mask, or an RLE of another size than its image.
    """
    images, labels = _Images(truth), _Labels(truth, classes)
    rows: dict[int, list[Row]] = {position: [] for position in positions}
    unknown: dict[str, Counter] = {'images': Counter(), 'categories': Counter()}
    left_out = Counter[str]()
    for index, record in enumerate(load_results(path) if records is None else records):
        position = images.find(record)
        label = labels.find(record, position)
        if position is None:
            unknown['images'][record.get('file_name') or record['image_id']] += 1
        elif label is None:
            unknown['categories'][record.get('category_name') or record['category_id']] += 1
        elif label < 0 or position not in rows:
            left_out['of classes' if label < 0 else 'in images'] += 1
        else:
            mask = _mask(f'{path}: item {index}', record, truth.images[position]) if with_masks else None
            rows[position].append(Row(record['bbox'], record['score'], label, mask))
    for what, names in unknown.items():
        if names:
            few = ', '.join(repr(name) for name, _ in names.most_common(3)) + (', ...' if len(names) > 3 else '')
            raise DataError(
                f'{path}: {names.total()} detections are of {len(names)} {what} that are not in {truth.names} ({few}). '
                'Give the annotations of the tested images'
            )
    said = ', '.join(f'{count} {where} that are not tested' for where, count in left_out.items())
    return [
        _detections(truth, *one, with_masks=with_masks) for one in rows.items()
    ], f'Left out of {path}: {said} (detections)' if said else ''


def _packed(where: str, record: dict[str, Any], image: dict[str, Any] | None = None) -> bytes | None:
    """The packed mask of a record. DataError, which begins with ``where``, if it is wrong, or of another ``image``."""
    try:
        mask = pack_mask(record.get('segmentation'))
        if image is not None:
            check_rle_size(mask, image)
        return mask
    except ValueError as error:
        raise DataError(f'{where}.segmentation {error}') from None


def _mask(where: str, record: dict[str, Any], image: dict[str, Any]) -> bytes:
    """The packed mask of a record, which must have one."""
    if (mask := _packed(where, record, image)) is None:
        raise DataError(f'{where} has no mask: {MASKS}')
    return mask


def has_masks(records: Sequence[dict[str, Any]]) -> bool:
    """Whether any record has a mask."""
    return any(record.get('segmentation') for record in records)


def load_results(path: str | Path) -> list[dict[str, Any]]:
    """The records of a results JSON. A missing box becomes that of the mask.

    Raises:
        DataError: the file is no list of records that have an image, a class, a box or a mask, and a score.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}') from None
    except (ValueError, RecursionError) as error:
        raise DataError(f'{path} is not JSON ({error}): {FORM}') from None
    if not isinstance(content, list):
        keys = f' of {", ".join(map(str, list(content)[:4]))}' if isinstance(content, dict) else ''
        raise DataError(f'{path} is no list, it is a JSON {type(content).__name__}{keys}: {FORM}')
    for index, record in enumerate(content):
        where = f'{path}: item {index}'
        if isinstance(record, dict) and not record.get('bbox') and (mask := _packed(where, record)):
            record['bbox'] = box_of(unpack_mask(mask))
        try:
            check_fields(where, record, image_id=is_id, category_id=is_id, bbox=is_xywh, score=_is_score)
        except ValueError as error:
            raise DataError(str(error)) from None
        if 'frame' in record:
            raise DataError(f'{where} is in a frame of the video {record.get("file_name")}: give results of images')
    return content


def _is_score(value: Any) -> str:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return '' if fits else 'a finite number'


class _Images:
    """Finds the position of a record's image in the truth: None if it has none, or several that could be meant."""

    def __init__(self, truth: Truth):
        self.paths = [_parts(image['file_name']) for image in truth.images]
        self.by_name: dict[str, list[int]] = {}
        self.by_id: dict[Id, list[int]] = {}
        for position, image in enumerate(truth.images):
            self.by_name.setdefault(self.paths[position][-1], []).append(position)
            self.by_id.setdefault(image['id'], []).append(position)

    def find(self, record: dict[str, Any]) -> int | None:
        """The position of the image of ``record``, by its file name if it has one, else by its id."""
        fitting = self.by_id.get(record['image_id'], [])
        if parts := _parts(str(record.get('file_name') or '')):
            # One path ends as the whole other one, because folders may be given from elsewhere.
            same = [
                p for p in self.by_name.get(parts[-1], ()) if all(map(operator.eq, parts[::-1], self.paths[p][::-1]))
            ]
            # Joined data sets may have two files of that name, which only their ids tell apart.
            fitting = same if len(same) == 1 else [position for position in same if position in fitting]
        return fitting[0] if len(fitting) == 1 else None


class _Labels:
    """Finds the label of a record's class: -1 for a class that is not tested, None for an unknown one."""

    def __init__(self, truth: Truth, classes: Sequence[str]):
        self.truth = truth
        every = {number: name for one in reversed(truth.sources) for name, number in one.content.categories.items()}
        own = [{number: name for name, number in one.content.categories.items()} for one in truth.sources]
        self.names = {id(one): {**every, **names} for one, names in zip(truth.sources, own, strict=True)}
        self.labels = {**dict.fromkeys(every.values(), -1), **{name: label for label, name in enumerate(classes)}}

    def find(self, record: dict[str, Any], position: int | None) -> int | None:
        """The label of ``record``, whose image is at ``position``, by the name of its class, or else by the id."""
        if position is None:
            return None
        names = self.names[id(self.truth.source_of(position))]
        return self.labels.get(record.get('category_name') or names.get(record['category_id'], ''))


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path.replace('\\', '/')).parts


def _detections(truth: Truth, position: int, rows: list[Row], *, with_masks: bool) -> Detections:
    image, folder = truth.images[position], truth.source_of(position).folder
    return Detections(
        img_id=image['id'],
        img_path=str(Path(folder, image['file_name'])) if folder is not None else None,
        xywh=np.array([row.xywh for row in rows], dtype=np.float64).reshape(-1, 4),
        scores=np.array([row.score for row in rows], dtype=np.float64),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        masks=[row.mask for row in rows if row.mask is not None] if with_masks else None,
    )
