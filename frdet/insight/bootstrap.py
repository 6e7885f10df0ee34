"""COCO's average precision of many samples of the validation images: the bootstrap over images.

hotcoco.compare draws images with replacement, but counts an image that was drawn twice only once. This leaves 63% of
the images in a sample, and makes its intervals narrower than the bootstrap's by a factor of 1.3. Here an image counts
as often as it was drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from frdet.evaluation.backends import Numbered, hotcoco_evaluator

#: The metric values that can be sampled, by the end of their names. Each has COCO's number of its area, and one IoU or
#: None for all ten.
SAMPLED: dict[str, tuple[int, float | None]] = {
    'bbox_mAP': (0, None),
    'bbox_mAP_50': (0, 0.5),
    'bbox_mAP_75': (0, 0.75),
    'bbox_mAP_s': (1, None),
    'bbox_mAP_m': (2, None),
    'bbox_mAP_l': (3, None),
}
MOST_NUMBERS = 1 << 18  # of an array


def draw(num_images: int, samples: int) -> np.ndarray:
    """(S + 1, I) int32: how often each of ``samples`` samples has each image; the first row has every image once.

    Equal arguments give equal samples, so that runs are compared on the same images.
    """
    counts = np.random.default_rng(0).multinomial(num_images, np.full(num_images, 1 / num_images), size=samples)
    return np.vstack([np.ones((1, num_images), int), counts]).astype(np.int32)


def sampled_ap(task: Numbered, counts: np.ndarray, *, area: int, iou: float | None) -> np.ndarray:
    """(S,) average precision of samples of the images; NaN of a sample without an object.

    Args:
        counts: (S, I), how often each sample has each of the tested images, in the order of ``task.tested``.
        area, iou: as in ``SAMPLED``.
    """
    evaluator = hotcoco_evaluator(task)
    params = evaluator.params
    params.areaRng, params.areaRngLbl = [params.areaRng[area]], ['all']
    params.iouThrs = params.iouThrs if iou is None else [iou]
    column = {image: index for index, image in enumerate(task.tested)}
    total, classes = np.zeros(len(counts)), np.zeros(len(counts), dtype=int)
    for category in range(1, task.num_classes + 1):  # one by one, because the matches of all take gigabytes
        params.catIds = [category]
        evaluator.evaluate()
        objects, ap = _class_ap([one for one in evaluator.eval_imgs if one], column, counts, np.array(params.recThrs))
        total, classes = total + np.where(objects > 0, ap, 0), classes + (objects > 0)
    return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)


def _class_ap(
    images: Sequence[Mapping[str, Any]], column: Mapping[int, int], counts: np.ndarray, recalls: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(S,) number of objects and (S,) average precision of a class, from its matches in the images that have any."""
    if not images:
        return np.zeros(len(counts), dtype=int), np.zeros(len(counts))
    columns = np.array([column[one['image_id']] for one in images])
    objects = counts[:, columns] @ np.array([len(one['gtIgnore']) - sum(one['gtIgnore']) for one in images])
    order = np.argsort(-np.concatenate([one['dtScores'] for one in images]), kind='stable')
    image = np.repeat(columns, [len(one['dtScores']) for one in images])[order]
    found, ignored = (
        np.concatenate([np.array(one[key], dtype=bool) for one in images], axis=1)[:, order]
        for key in ('dtMatched', 'dtIgnore')
    )
    ap = np.zeros((len(found), len(counts)))
    step = max(1, MOST_NUMBERS // max(1, len(image)))
    for rows in (slice(start, start + step) for start in range(0, len(counts), step)):
        weights = counts[rows, image]
        for index, (right, keep) in enumerate(zip(found & ~ignored, ~ignored, strict=True)):
            ap[index, rows] = _curve_area(weights, right, keep, objects[rows], recalls)
    return objects, ap.mean(axis=0)


def _curve_area(
    weights: np.ndarray, right: np.ndarray, counted: np.ndarray, objects: np.ndarray, recalls: np.ndarray
) -> np.ndarray:
    """(S,) mean of the precisions at COCO's recalls, of D detections by descending score.

    Args:
        weights: (S, D), how often each sample has each detection.
        right: (D,) bool, whether the detection found an object.
        counted: (D,) bool, whether it is right or wrong, and not ignored.
        objects: (S,) number of objects.
        recalls: (R,), ascending.
    """
    at = np.flatnonzero(right)  # the precision at a recall is greatest where an object was found
    hits = weights[:, at].cumsum(axis=1)
    every = (weights * counted).cumsum(axis=1, dtype=np.int32)[:, at]
    precision = np.maximum.accumulate((hits / np.maximum(every, 1))[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(recalls, hits / np.maximum(objects, 1)[:, None], side='right')
    return (np.diff(reached, axis=1, prepend=0) * precision).sum(axis=1) / len(recalls)
