"""COCO's evaluation by pycocotools or by faster-coco-eval, behind one function each."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.annotations import Id


class CocoEval(NamedTuple):
    """What COCO's evaluation accumulates for T thresholds, R recalls, K classes, A areas and M counts of detections.

    Attributes:
        precision: (T, R, K, A, M), -1 where there is no object.
        recall: (T, K, A, M), the same.
        iou_thresholds: (T,).
        cat_ids: category id of each of the K classes, ascending: the numbers that the evaluator was given.
    """

    precision: np.ndarray
    recall: np.ndarray
    iou_thresholds: np.ndarray
    cat_ids: Sequence[Id]


class Numbered(NamedTuple):
    """What an evaluator is given: N images, K classes and all annotations and detections numbered from 1.

    Attributes:
        num_images, num_classes: N and K.
        annotations: COCO's annotations; one whose area is negative counts neither as found nor as missed.
        detections: the same with a ``score``, as the evaluators' loadRes makes them of results.
        tested: numbers of the images that were tested.
        max_dets: three counts of detections, ascending.
    """

    num_images: int
    num_classes: int
    annotations: list[dict[str, Any]]
    detections: list[dict[str, Any]]
    tested: list[int]
    max_dets: list[int]


Backend = Callable[[Numbered], CocoEval]


def _evaluator(coco_class: Any, eval_class: Any, task: Numbered) -> Any:
    truth, found = coco_class(), coco_class()
    truth.dataset = {
        'images': [{'id': number} for number in range(1, task.num_images + 1)],
        'categories': [{'id': number, 'name': str(number)} for number in range(1, task.num_classes + 1)],
        'annotations': task.annotations,
    }
    found.dataset = {**truth.dataset, 'annotations': task.detections}
    truth.createIndex()
    found.createIndex()
    evaluator = eval_class(truth, found, iouType='bbox')
    evaluator.params.imgIds = task.tested
    evaluator.params.catIds = list(range(1, task.num_classes + 1))
    evaluator.params.maxDets = task.max_dets
    evaluator.evaluate()
    return evaluator


def _result(evaluator: Any) -> CocoEval:
    evaluator.accumulate()
    params = evaluator.params
    precision, recall = (np.array(evaluator.eval[key]) for key in ('precision', 'recall'))
    return CocoEval(precision, recall, params.iouThrs, list(params.catIds))


def with_pycocotools(task: Numbered) -> CocoEval:
    """The reference, in Python: a minute for COCO's 5000 validation images."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _result(_evaluator(COCO, COCOeval, task))


def with_faster_coco_eval(task: Numbered) -> CocoEval:
    """The same in C++, and to the last bit."""
    from faster_coco_eval import COCO, COCOeval_faster

    # Apart from accumulating, so that _first_alone can accumulate once more.
    evaluator = _evaluator(COCO, functools.partial(COCOeval_faster, separate_eval=True), task)
    result = _result(evaluator)
    result.precision[(result.precision == 1) & _first_alone(evaluator)] = 1 / (1 + np.spacing(1))
    return result


def _first_alone(evaluator: Any) -> np.ndarray:
    """Where pycocotools' best precision is a little below 1, and faster-coco-eval's 1: (T, 1, K, A, M) bool.

    pycocotools divides by the number of detections plus 2e-16, which changes nothing from two detections on. With the
    best detection right, precision is 1 / (1 + 2e-16) at the first object found; it becomes 1 if the second is right
    too. So the precision at the second object is asked for, at a recall between 1 and 2 of the K x A counts of objects.
    """
    from faster_coco_eval import faster_eval_api_cpp

    params = copy.copy(evaluator._paramsEval)
    counts = _objects(evaluator.cocoGt.dataset['annotations'], params)
    distinct, place = np.unique(-counts, return_inverse=True)  # most objects first, for ascending recalls
    params.recThrs = 1.5 / np.maximum(-distinct, 1)
    again = faster_eval_api_cpp.COCOevalAccumulate(params, evaluator._evalImgs_cpp)
    classes, areas = np.indices(counts.shape)
    second = np.array(again['precision'])[:, place.reshape(counts.shape), classes, areas]
    return (second < 1)[:, None]


def _objects(annotations: list[dict[str, Any]], params: Any) -> np.ndarray:
    """(K, A): objects of each class and area in the images evaluated, crowds apart."""
    tested, classes = set(params.imgIds), {cat_id: k for k, cat_id in enumerate(params.catIds)}
    counts = np.zeros((len(classes), len(params.areaRng)), dtype=int)
    for item in annotations:
        if item['image_id'] in tested and item['category_id'] in classes and not item['iscrowd']:
            counts[classes[item['category_id']]] += [low <= item['area'] <= high for low, high in params.areaRng]
    return counts


BACKENDS: dict[str, Backend] = {'faster_coco_eval': with_faster_coco_eval, 'pycocotools': with_pycocotools}
