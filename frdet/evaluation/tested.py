"""The tested data set, and the annotations that it is evaluated with."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from frdet.datasets.base import UNUSED_CLASS, DetDataset
from frdet.datasets.wrappers import leaves
from frdet.errors import ConfigError, DataError, defined
from frdet.evaluation.truth import Source, Truth


def parts_of(dataset: Any, ann_file: str | None) -> tuple[list[DetDataset], list[Any]]:
    """The data sets inside ``dataset`` that were read from ``ann_file``, or all if it is None; and the other ones.

    Raises:
        ConfigError: ``ann_file`` is None, and a data set is no ``DetDataset``.
    """
    own: list[DetDataset] = []
    others: list[Any] = []
    for part in leaves(dataset):
        if ann_file is None and not isinstance(part, DetDataset):
            raise ConfigError(
                f'CocoMetric has no ground truth to compare with: the tested {defined(type(part))} is no DetDataset. '
                "Derive it from frdet.datasets.DetDataset, or give the annotations as COCO's JSON with ann_file"
            )
        is_own = isinstance(part, DetDataset) and (ann_file is None or _is_same(part.ann_file, ann_file))
        (own if is_own else others).append(part)
    return own, others


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def truth_of(datasets: Sequence[DetDataset]) -> Truth:
    """The truth of data sets. Data sets that read the same files, such as two subsets of one, are a single source."""
    sources = {(type(one), one.ann_file, one.data_prefix['img']): one for one in datasets}
    return Truth([Source(one.ann_file, one.annotations(), one.data_prefix['img']) for one in sources.values()])


def classes_lacking(datasets: Sequence[Any]) -> set[str]:
    """Classes that ``metainfo`` of every data set names and that all of their files lack."""
    lacking: list[set[str]] = []
    for dataset in datasets:
        names = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
        ids = getattr(dataset, 'cat_ids', None) or [0] * len(names)
        lacking.append({name for name, cat_id in zip(names, ids, strict=False) if cat_id is None} - {UNUSED_CLASS})
    return set.intersection(*lacking) if lacking else set()


def check_images(truth: Truth, dataset: Any) -> list[str]:
    """Compare the images of ``dataset`` with ``truth``, which was read from other files.

    Returns:
        Sentences about differences that may be intended.

    Raises:
        DataError: ``truth`` lacks an image or has it with another size, or no image has the same boxes.
    """
    if not hasattr(dataset, 'get_data_info'):
        return []
    classes = set((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
    name = ' and '.join(sorted({str(getattr(part, 'ann_file', type(part).__name__)) for part in leaves(dataset)}))
    compared = differ = 0
    for record in map(dataset.get_data_info, range(len(dataset))):
        if 'img_id' not in record:
            return []
        position = truth.position(record['img_id'], record.get('img_path'))
        if position is None:
            raise truth.lost(record['img_id'], record.get('img_path'), name)
        image = truth.images[position]
        size = tuple(record.get(side, image[side]) for side in ('width', 'height'))
        if size != (image['width'], image['height']):
            raise DataError(
                f'Image {record["img_id"]} is {size[0]}x{size[1]} in {name} and {image["width"]}x{image["height"]} in '
                f'{truth.names}: these are two pictures. Leave ann_file of the evaluator out, or give it {name}'
            )
        if 'gt_bboxes' in record:
            there = truth.boxes_of(position, classes)
            boxes = np.asarray(record['gt_bboxes'], dtype=np.float32)
            compared += bool(len(there) or len(boxes))
            differ += sorted(there.tolist()) != sorted(boxes.tolist())
    if differ and differ == compared and compared > 1:
        raise DataError(
            f'{name} and {truth.names} list the same images, but differ in the boxes of all {compared} images with '
            'boxes: do two sets of pictures have the same names? Leave ann_file of the evaluator out, or give it '
            f'{name}'
        )
    said = f'The tested {name} and {truth.names} differ in the boxes of {differ} of {compared} images: the latter count'
    return [said] if differ else []
