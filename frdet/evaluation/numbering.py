"""Detections and ground truth as the input of an evaluator, with images and classes numbered from 1."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.annotations import Id, id_key
from frdet.datasets.masks import encode_mask, rle_of, unpack_mask
from frdet.errors import ConfigError, DataError
from frdet.evaluation.backends import Numbered
from frdet.evaluation.truth import Truth


class Detections(NamedTuple):
    """Detections in one image: ``xywh`` (n, 4) float64 in pixels, ``scores`` (n,), ``labels`` (n,).

    ``masks`` are n packed masks, see ``frdet.datasets.masks``, or None if only boxes are evaluated.
    """

    img_id: Id
    img_path: str | None
    xywh: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[bytes] | None = None


def detections_of(sample: Mapping[str, Any], *, with_masks: bool = False) -> Detections:
    """The detections of a sample, for an evaluator. Masks become RLE at once: as pixels they need 8,000 times as much.

    Raises:
        ConfigError: the model gives no boxes, scores or labels, or no masks where they are wanted.
        DataError: a number is not finite.
    """
    img_id, found = sample['img_id'], sample.get('pred_instances', {})
    if missing := [key for key in ('bboxes', 'scores', 'labels') if key not in found]:
        raise ConfigError(
            f'The result of the model for image {img_id} has no {" and no ".join(missing)}: expected pred_instances '
            'with bboxes, scores and labels in every sample that predicting returns'
        )
    if with_masks and 'masks' not in found:
        raise ConfigError(
            f'The result of the model for image {img_id} has no masks, and CocoMetric has metric segm: give the model '
            "a mask head, or the evaluator metric='bbox'"
        )
    boxes, scores, labels = (found[key].detach().float().cpu().numpy() for key in ('bboxes', 'scores', 'labels'))
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DataError(
            f'A box or score detected in image {img_id} is not finite and cannot be ranked: has training diverged?'
        )
    corner, end = np.split(boxes.astype(np.float64), 2, axis=1)  # sizes are subtracted in float64
    xywh = np.concatenate([corner, end - corner], axis=1)
    masks = [encode_mask(mask) for mask in found['masks'].cpu().numpy()] if with_masks else None
    return Detections(img_id, sample.get('img_path'), xywh, scores, labels.astype(np.int64), masks)


def numbers_of(cat_ids: Collection[Id | None]) -> dict[int, int]:
    """The evaluator's number of every label that has a category, in the order of the category ids.

    COCO averages in this order. Another order would change the rounding.
    """
    known = {label: cat_id for label, cat_id in enumerate(cat_ids) if cat_id is not None}
    return {label: number for number, label in enumerate(sorted(known, key=lambda k: id_key(known[k])), start=1)}


def numbered(
    truth: Truth,
    found: Mapping[int, Detections],
    classes: Sequence[str],
    numbers: dict[int, int],
    max_dets: Sequence[int],
    *,
    with_masks: bool = False,
) -> Numbered:
    """The input of an evaluator of boxes, or of masks.

    Args:
        found: detections by the position of their image in ``truth``, ascending. These images are tested.
        classes: names by label.
        numbers: the evaluator's category id of every label that counts. Detections of other labels are left out.
        max_dets: three counts of detections, ascending.
    """
    return Numbered(
        num_images=len(truth.images),
        num_classes=len(numbers),
        truth=truth.annotations(found, classes, numbers),
        found=_table(found, numbers),
        tested=[position + 1 for position in found],
        max_dets=list(max_dets),
        truth_masks=truth.masks(found, classes, numbers) if with_masks else None,
        found_masks=_masks(truth, found, numbers) if with_masks else None,
    )


def _table(found: Mapping[int, Detections], numbers: dict[int, int]) -> np.ndarray:
    """(N, 7) float64: number of the image (position + 1), left, top, width, height, score, category."""
    tables = [np.zeros((0, 7))]
    for position, one in found.items():
        category = [numbers.get(label, 0) for label in one.labels.tolist()]
        table = np.column_stack([np.full(len(category), position + 1), one.xywh, one.scores, category])
        tables.append(table[table[:, -1] > 0])
    return np.concatenate(tables)


def _masks(truth: Truth, found: Mapping[int, Detections], numbers: dict[int, int]) -> list[dict[str, Any]]:
    """The RLE of each row of ``_table``."""
    return [
        rle_of(unpack_mask(mask), truth.size(position))
        for position, one in found.items()
        for mask, label in zip(one.masks or (), one.labels.tolist(), strict=True)
        if label in numbers
    ]
