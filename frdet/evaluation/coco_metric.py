"""COCO's 12 figures of box detection, and the average precision of every class."""

import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from frdet.datasets.coco import UNUSED_CLASS, UNUSED_ID
from frdet.errors import ConfigError, DataError
from frdet.evaluation.backends import BACKENDS, CocoEval, read_annotations
from frdet.registry import METRICS

#: Names of COCO's area ranges in its own order, with the ending of our figures.
_AREAS = ('', '_s', '_m', '_l')
CLASS_COLUMNS = 3  # classes side by side in the table


class Detections(NamedTuple):
    """Detections in one image: ``boxes`` (n, 4) xyxy, ``scores`` (n,), ``labels`` (n,)."""

    img_id: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """Average precision and recall as COCO defines them, over the images that were tested, each counted once.

    ``<prefix>/bbox_mAP`` is the mean over classes and IoU thresholds 0.50 to 0.95; ``_50`` and ``_75`` are at one
    threshold; ``_s``, ``_m``, ``_l`` for objects of areas below 32^2, between, and above 96^2 square pixels. ``AR@n``
    is the recall with the n best detections of each class and image. A figure for which there is no object is -1.

    Args:
        ann_file: the annotations, COCO's JSON.
        prefix: before the names of the figures.
        classwise: log the average precision of every class.
        outfile: where to write the detections as COCO's results JSON; None writes none.
        max_dets: detections of a class and image counted in the three recalls; the last one in all other figures.
        backend: 'faster_coco_eval', or 'pycocotools', which takes several times as long for the same figures, to
            the last bit.

    Raises:
        ConfigError: ``backend`` or ``max_dets`` is wrong.
        DataError: ``ann_file`` is missing or is no COCO file.
    """

    default_prefix = 'coco'

    def __init__(
        self,
        *,
        ann_file: str,
        prefix: str | None = None,
        classwise: bool = True,
        outfile: str | None = None,
        max_dets: Sequence[int] = (1, 10, 100),
        backend: str = 'faster_coco_eval',
    ):
        # Gathering through the process group writes no files; MMEngine calls it 'gpu', whatever the group runs on.
        super().__init__(collect_device='gpu', prefix=prefix)
        if backend not in BACKENDS:
            raise ConfigError(f'CocoMetric: backend is {backend!r}, expected {" or ".join(BACKENDS)}')
        if len(max_dets) != 3 or list(max_dets) != sorted(max_dets) or min(max_dets) < 1:
            raise ConfigError(f'CocoMetric: max_dets is {max_dets!r}, expected three ascending counts, as (1, 10, 100)')
        self.ann_file = ann_file
        self.classwise = classwise
        self.outfile = outfile
        self.max_dets = tuple(max_dets)
        self.backend = backend
        self.evaluation: CocoEval | None = None  # COCO's arrays of the last evaluation, on the first process
        self._annotations = read_annotations(ann_file)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch."""
        for sample in data_samples:
            found = sample['pred_instances']
            arrays = (found[key].detach().float().cpu().numpy() for key in ('bboxes', 'scores', 'labels'))
            boxes, scores, labels = arrays
            if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
                raise DataError(
                    f'A box or score detected in image {sample["img_id"]} is not finite and cannot be ranked: '
                    'has training diverged?'
                )
            self.results.append(Detections(sample['img_id'], boxes, scores, labels.astype(np.int64)))

    def evaluate(self, size: int) -> dict[str, float]:
        """The figures of the images processed since the last call, by all processes.

        MMEngine would cut the gathered results to ``size``, which drops the images that were repeated to give every
        process as many only if their order is kept. ``compute_metrics`` drops them by image id.
        """
        return super().evaluate(sys.maxsize)

    def compute_metrics(self, results: list[Detections]) -> dict[str, float]:
        """The 12 figures of ``results``; a table of them and of the classes goes to the log."""
        logger = MMLogger.get_current_instance()
        detections = {item[0]: Detections(*item) for item in reversed(results)}  # gathering makes plain tuples
        cat_ids = self._category_ids()
        self._check_labels(detections, len(cat_ids))
        used_ids = [cat_id for cat_id in cat_ids if cat_id != UNUSED_ID]
        records = [record for img_id in sorted(detections) for record in _records(detections[img_id], cat_ids)]
        if self.outfile is not None:
            _write_json(records, Path(self.outfile))
            logger.info(f'{len(records)} detections in {len(detections)} images written to {self.outfile}')
        if not records:
            logger.warning('There is no detection at all: every figure is 0, or -1 where there is no object')
        with contextlib.redirect_stdout(io.StringIO()):  # both evaluators print
            evaluation = BACKENDS[self.backend](
                self._annotations, records, sorted(detections), used_ids, list(self.max_dets)
            )
        self.evaluation = evaluation
        figures = self._figures(evaluation)
        logger.info('\n' + AsciiTable([['figure', 'value'], *([k, f'{v:.4f}'] for k, v in figures.items())]).table)
        if self.classwise:
            logger.info('\n' + self._class_table(evaluation).table)
        return figures

    def _category_ids(self) -> list[int]:
        """Category id of every label, by the names of the data set's classes."""
        ids = {category['name']: category['id'] for category in self._annotations['categories']}
        classes = (self.dataset_meta or {}).get('classes') or sorted(ids, key=lambda name: ids[name])
        ids[UNUSED_CLASS] = UNUSED_ID
        if unknown := [name for name in classes if name not in ids]:
            raise DataError(
                f'{self.ann_file} has no category {unknown[0]!r}, a class of the data set evaluated: '
                'the evaluator needs the annotation file of that data set'
            )
        return [ids[name] for name in classes]

    def _check_labels(self, detections: dict[int, Detections], count: int) -> None:
        for img_id, found in detections.items():
            if len(wrong := found.labels[(found.labels < 0) | (found.labels >= count)]):
                raise DataError(
                    f'{self.ann_file} has no category for label {wrong[0]}, detected in image {img_id}: there are '
                    f'{count} classes; the head and the data set must have the same'
                )

    def _figures(self, evaluation: CocoEval) -> dict[str, float]:
        """COCO's 12 figures in its order, as pycocotools averages them."""
        iou = list(evaluation.iou_thresholds)
        precision, recall = evaluation.precision, evaluation.recall
        figures = {'bbox_mAP': _mean(precision[:, :, :, 0, -1])}
        for percent in (50, 75):
            place = int(np.flatnonzero(np.isclose(iou, percent / 100))[0])
            figures[f'bbox_mAP_{percent}'] = _mean(precision[place, :, :, 0, -1])
        for area, ending in list(enumerate(_AREAS))[1:]:
            figures[f'bbox_mAP{ending}'] = _mean(precision[:, :, :, area, -1])
        for place, count in enumerate(self.max_dets):
            figures[f'bbox_AR@{count}'] = _mean(recall[:, :, 0, place])
        for area, ending in list(enumerate(_AREAS))[1:]:
            figures[f'bbox_AR{ending}'] = _mean(recall[:, :, area, -1])
        return figures

    def _class_table(self, evaluation: CocoEval) -> AsciiTable:
        names = {category['id']: category['name'] for category in self._annotations['categories']}
        cells = [
            (names[cat_id], f'{_mean(evaluation.precision[:, :, place, 0, -1]):.4f}')
            for place, cat_id in enumerate(evaluation.cat_ids)
        ]
        cells += [('', '')] * (-len(cells) % CLASS_COLUMNS)
        rows = len(cells) // CLASS_COLUMNS
        columns = [cells[start : start + rows] for start in range(0, len(cells), rows)]
        lines = [[text for cell in line for text in cell] for line in zip(*columns, strict=True)]
        return AsciiTable([['class', 'AP'] * CLASS_COLUMNS, *lines])


def _records(found: Detections, cat_ids: list[int]) -> list[dict[str, Any]]:
    """One image's detections as COCO's results: xywh, subtracted in float64. Those of unused labels are left out."""
    return [
        {
            'image_id': found.img_id,
            'category_id': cat_ids[label],
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'score': score,
        }
        for (x1, y1, x2, y2), score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        )
        if cat_ids[label] != UNUSED_ID
    ]


def _mean(values: np.ndarray) -> float:
    """Mean of what is defined (COCO marks the rest with -1), or -1."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0


def _write_json(records: list[dict[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.part')
    part.write_text(json.dumps(records))
    os.replace(part, path)
