"""COCO's evaluation by pycocotools or by faster-coco-eval, behind one function each."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.errors import DataError


class CocoEval(NamedTuple):
    """What COCO's evaluation accumulates for T thresholds, R recalls, K classes, A areas and M counts of detections.

    Attributes:
        precision: (T, R, K, A, M), -1 where there is no object.
        recall: (T, K, A, M), the same.
        iou_thresholds: (T,).
        cat_ids: category id of each of the K classes, ascending.
    """

    precision: np.ndarray
    recall: np.ndarray
    iou_thresholds: np.ndarray
    cat_ids: list[int]


Backend = Callable[[dict[str, Any], list[dict[str, Any]], list[int], list[int], list[int]], CocoEval]


def read_annotations(path: str | Path) -> dict[str, Any]:
    """An annotation file without its masks; what boxes need and a file may lack is added: ids, areas, crowd flags.

    Raises:
        DataError: the file is missing or is not in COCO's layout.
    """
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file, object_hook=_without_mask)
    except OSError as error:
        raise DataError(
            f"Annotations {path} cannot be read: {error.strerror}. Check the evaluator's ann_file"
        ) from None
    except ValueError as error:
        raise DataError(f'{path} is not JSON ({error}): expected COCO annotations') from None
    sections = ('images', 'annotations', 'categories')
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in sections):
        raise DataError(f'{path} is no COCO annotation file: expected a dict with the lists {", ".join(sections)}')
    for number, annotation in enumerate(content['annotations'], start=1):
        annotation.setdefault('id', number)
        annotation.setdefault('iscrowd', 0)
        if 'area' not in annotation:
            annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
    return content


def _without_mask(item: dict) -> dict:
    item.pop('segmentation', None)
    return item


def _run(
    coco_class: Any,
    eval_class: Any,
    annotations: dict[str, Any],
    detections: list[dict[str, Any]],
    img_ids: list[int],
    cat_ids: list[int],
    max_dets: list[int],
) -> CocoEval:
    truth, found = coco_class(), coco_class()
    truth.dataset = copy.deepcopy(annotations)  # the evaluators write into it
    # What their loadRes would do, but also for an empty list.
    boxes = [
        {**item, 'id': number, 'area': item['bbox'][2] * item['bbox'][3], 'iscrowd': 0}
        for number, item in enumerate(detections, start=1)
    ]
    found.dataset = {**truth.dataset, 'annotations': boxes}
    truth.createIndex()
    found.createIndex()
    evaluator = eval_class(truth, found, iouType='bbox')
    evaluator.params.imgIds = img_ids
    evaluator.params.catIds = sorted(cat_ids)
    evaluator.params.maxDets = max_dets
    evaluator.evaluate()
    evaluator.accumulate()
    parts = evaluator.eval
    return CocoEval(
        np.asarray(parts['precision']), np.asarray(parts['recall']), evaluator.params.iouThrs, sorted(cat_ids)
    )


def with_pycocotools(*args: Any) -> CocoEval:
    """The reference, in Python: a minute for COCO's 5000 validation images."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _run(COCO, COCOeval, *args)


def with_faster_coco_eval(*args: Any) -> CocoEval:
    """The same in C++. It leaves out the 2e-16 by which pycocotools keeps a division from being one by zero."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _run(COCO, COCOeval_faster, *args)


BACKENDS: dict[str, Backend] = {'pycocotools': with_pycocotools, 'faster_coco_eval': with_faster_coco_eval}
