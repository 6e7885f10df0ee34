"""COCO's evaluation by hotcoco or by pycocotools: one function for each."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from frdet.datasets.annotations import Id
from frdet.errors import ConfigError

KINDS = ('bbox', 'segm')  # what is compared: boxes or masks


class CocoEval(NamedTuple):
    """The result of COCO's evaluation for T thresholds, R recalls, K classes, A areas and M counts of detections.

    Attributes:
        precision: (T, R, K, A, M), -1 where there is no object.
        recall: (T, K, A, M), -1 where there is no object.
        iou_thresholds: (T,).
        cat_ids: category ids of the K classes, ascending.
    """

    precision: np.ndarray
    recall: np.ndarray
    iou_thresholds: np.ndarray
    cat_ids: Sequence[Id]


class Columns(NamedTuple):
    """M annotations.

    Attributes:
        image, category: (M,) int64, numbers from 1.
        boxes: (M, 4) float64, left, top, width and height in pixels.
        area: (M,) float64, square pixels. An annotation of negative area counts neither as found nor as missed.
        crowd: (M,) bool.
    """

    image: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    crowd: np.ndarray


class Numbered(NamedTuple):
    """The input of an evaluator. Images, classes, annotations and detections are numbered from 1.

    Attributes:
        found: (N, 7) float64, COCO's array of detections: image, left, top, width, height, score, category.
        tested: numbers of the tested images.
        max_dets: three counts of detections, ascending.
        truth_masks, found_masks: COCO's compressed RLE of each annotation and detection. None compares boxes.
    """

    num_images: int
    num_classes: int
    truth: Columns
    found: np.ndarray
    tested: list[int]
    max_dets: list[int]
    truth_masks: list[Any] | None = None
    found_masks: list[Any] | None = None

    @property
    def iou_type(self) -> str:
        """COCO's name for what is compared."""
        return 'bbox' if self.truth_masks is None else 'segm'

    def mask_areas(self) -> np.ndarray:
        """(N,) square pixels of the detected masks, which COCO takes for the size of a detection."""
        # One by one: with NumPy 2, pycocotools fails at a list of more than 255.
        return np.array([coco_mask.area(mask) for mask in self.found_masks or ()], dtype=np.float64)


def with_hotcoco(task: Numbered) -> CocoEval:
    """COCO's evaluation in Rust. It gives the same arrays as pycocotools, to the last bit."""
    return _result(hotcoco_evaluator(task))


def with_pycocotools(task: Numbered) -> CocoEval:
    """The reference, in Python: about a minute for COCO's 5,000 validation images."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images, categories = _records(task)
    truth = COCO()
    columns = zip(*(column.tolist() for column in task.truth), strict=True)
    truth.dataset = {
        'images': [{**image, 'height': 0, 'width': 0} for image in images],  # read, and not used for RLE
        'categories': categories,
        'annotations': [
            dict(id=i, image_id=image, category_id=category, bbox=box, area=area, iscrowd=int(crowd))
            for i, (image, category, box, area, crowd) in enumerate(columns, start=1)
        ],
    }
    _set_each(truth.dataset['annotations'], segmentation=task.truth_masks)
    truth.createIndex()
    found = truth.loadRes(task.found) if len(task.found) else COCO()  # loadRes refuses an empty array
    if task.found_masks:
        _set_each(found.dataset['annotations'], segmentation=task.found_masks, area=task.mask_areas().tolist())
    return _result(_evaluated(COCOeval(truth, found, task.iou_type), task))


def _set_each(items: list[dict[str, Any]], **columns: list | None) -> None:
    """Set the values of a column in each item; None leaves the items as they are."""
    for field, values in columns.items():
        for item, value in zip(items, values or (), strict=values is not None):
            item[field] = value


def hotcoco_evaluator(task: Numbered, ious: Sequence[float] | None = None) -> Any:
    """A ``hotcoco.COCOeval`` that has matched the detections. Annotations and detections have ids from 1.

    Args:
        ious: the IoU thresholds; None: COCO's ten.
    """
    from hotcoco import COCO, COCOeval

    image, category, boxes, area, crowd = task.truth
    truth = COCO.from_arrays(
        *_records(task), image, category, boxes, area=area, iscrowd=crowd, segmentation=task.truth_masks
    )
    found = truth.load_res(task.found, segmentation=task.found_masks)
    if task.found_masks:
        found.update_anns(ids=np.arange(1, len(task.found) + 1), area=task.mask_areas())
    return _evaluated(COCOeval(truth, found, task.iou_type), task, ious)


def _records(task: Numbered) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """COCO's images and categories."""
    images = [{'id': number} for number in range(1, task.num_images + 1)]
    return images, [{'id': number, 'name': str(number)} for number in range(1, task.num_classes + 1)]


def _evaluated(evaluator: Any, task: Numbered, ious: Sequence[float] | None = None) -> Any:
    evaluator.params.imgIds = task.tested
    evaluator.params.catIds = list(range(1, task.num_classes + 1))
    evaluator.params.maxDets = task.max_dets
    if ious is not None:
        evaluator.params.iouThrs = list(ious)
    evaluator.evaluate()
    return evaluator


def _result(evaluator: Any) -> CocoEval:
    evaluator.accumulate()
    precision, recall = (np.array(evaluator.eval[key]) for key in ('precision', 'recall'))
    return CocoEval(precision, recall, np.array(evaluator.params.iouThrs), list(evaluator.params.catIds))


BACKENDS: dict[str, Callable[[Numbered], CocoEval]] = {'hotcoco': with_hotcoco, 'pycocotools': with_pycocotools}


def checked_backend(name: str) -> str:
    """A name in ``BACKENDS``; ConfigError if there is no such backend."""
    if name == 'faster_coco_eval':
        warnings.warn(
            "CocoMetric: backend='faster_coco_eval' is gone. 'hotcoco' gives the same results in less time: leave "
            'backend out, because the former name ends with the next release',
            FutureWarning,
            stacklevel=3,
        )
        return 'hotcoco'
    if name not in BACKENDS:
        raise ConfigError(f'CocoMetric: backend is {name!r}, expected {" or ".join(BACKENDS)}')
    return name


def checked_kinds(metric: str | Sequence[str]) -> tuple[str, ...]:
    """The kinds of evaluation that ``metric`` names. ConfigError if there is no such kind."""
    kinds = (metric,) if isinstance(metric, str) else tuple(metric)
    if not kinds or len({*kinds} & {*KINDS}) < len(kinds):
        raise ConfigError(f"CocoMetric: metric is {metric!r}, expected 'bbox', 'segm' or both: ('bbox', 'segm')")
    return kinds
