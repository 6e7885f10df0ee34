"""COCO's 12 metric values of detected boxes or masks, and the average precision of every class."""

import contextlib
import io
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from frdet.datasets.annotations import Id, id_key
from frdet.datasets.classes import UNUSED_CLASS
from frdet.datasets.coco import CocoDataset, read_coco, write_coco
from frdet.datasets.masks import as_coco
from frdet.errors import ConfigError, DataError
from frdet.evaluation.backends import BACKENDS, CocoEval, checked_backend, checked_kinds
from frdet.evaluation.numbering import Detections, detections_of, numbered, numbers_of
from frdet.evaluation.truth import Source, Truth, check_images, classes_lacking, classes_of, parts_of, truth_of
from frdet.files import write_file
from frdet.registry import METRICS

MAX_DETS = (1, 10, 100)
CLASS_COLUMNS = 3  # classes side by side in the table


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """Average precision and recall as COCO defines them, over the images that were tested, each counted once.

    ``<prefix>/bbox_mAP`` of boxes, or ``segm_mAP`` of masks, is the mean over classes and IoU thresholds 0.50 to 0.95;
    ``_50`` and ``_75`` are at one threshold; ``_s``, ``_m``, ``_l`` for objects of areas below 32^2, between, and above
    96^2 square pixels. ``AR@n`` is the recall with the n best detections of each class and image. A value is -1 where
    no object can be measured.

    The Runner calls ``use_dataset`` with the data set that is tested. The annotations of that data set, in any format,
    are the ground truth. If it joins several data sets, a metric with ``ann_file`` measures only the one that was read
    from this file. Objects marked with ``"ignore": 1`` count neither as found nor as missed.

    Args:
        metric: ``bbox``, ``segm``, or both: what is compared. ``segm`` needs a data set with ``with_masks=True``.
        ann_file: the file or folder of one of the tested data sets, or another COCO JSON file of the same images.
            None measures all tested data sets by their own annotations.
        prefix: is written before the names of the metric values.
        classwise: log the average precision of every class.
        outfile: file to write, the detections as COCO's results JSON, masks as RLE. None writes no file.
        max_dets: counts of detections of a class and image for the three recalls. The last count is used for all other
            values.
        backend: 'hotcoco', or the much slower 'pycocotools'. Both give the same results to the last bit.

    Raises:
        ConfigError: ``metric``, ``backend`` or ``max_dets`` is wrong, or ``ann_file`` is None and the data set is no
            ``DetDataset``.
        DataError: ``ann_file`` is missing, is no COCO file, or lacks a tested image or a mask.
    """

    default_prefix = 'coco'

    def __init__(
        self,
        *,
        metric: str | Sequence[str] = 'bbox',
        ann_file: str | None = None,
        prefix: str | None = None,
        classwise: bool = True,
        outfile: str | None = None,
        max_dets: Sequence[int] = MAX_DETS,
        backend: str = 'hotcoco',
    ):
        # 'gpu' gathers through the process group, also on CPUs, and writes no files.
        super().__init__(collect_device='gpu', prefix=prefix)
        if len(max_dets) != 3 or list(max_dets) != sorted(max_dets) or min(max_dets) < 1:
            raise ConfigError(f'CocoMetric: max_dets is {max_dets!r}, expected three ascending counts: (1, 10, 100)')
        if ann_file is not None and not Path(ann_file).exists():
            raise DataError(f'CocoMetric: {ann_file} cannot be read: No such file or directory')
        self.kinds = checked_kinds(metric)
        self.ann_file = ann_file
        self.classwise = classwise
        self.outfile = outfile
        self.max_dets = tuple(max_dets)
        self.backend = checked_backend(backend)
        #: COCO's arrays of the last evaluation by 'bbox' and 'segm', on the first process.
        self.evaluations: dict[str, CocoEval] = {}
        self.doubts: list[str] = []  # what a reader of the metric values should know; set by use_dataset
        self.has_object = True
        self._known: Truth | None = None
        self._coco_file = ann_file  # the COCO JSON with exactly the truth, if there is one
        self._may_lack: set[str] = set()
        self._has_others = False  # whether other metrics measure other parts of a joined data set

    @property
    def evaluation(self) -> CocoEval | None:
        """COCO's arrays of the last evaluation, of boxes if they are evaluated; None before."""
        return next(iter(self.evaluations.values()), None)

    @property
    def with_masks(self) -> bool:
        """Whether masks are evaluated."""
        return 'segm' in self.kinds

    def use_dataset(self, dataset: Any) -> None:
        """Take the ground truth from the data set to test, or compare the images of this data set with ``ann_file``.

        Raises:
            ConfigError: ``ann_file`` is None, and the data set is no ``DetDataset``.
            DataError: ``ann_file`` lacks an image of the data set, or has other boxes in every image; or an object has
                no mask, and masks are evaluated.
        """
        logger = MMLogger.get_current_instance()
        own, others = parts_of(dataset, self.ann_file)
        if own:
            self._known = truth_of(own)
            self._has_others = bool(others)
            is_whole_file = isinstance(own[0], CocoDataset) and own[0].chosen is None
            self._coco_file = own[0].ann_file if is_whole_file else None
        truth = self.truth()
        self._may_lack = classes_lacking(own or others)
        classes = classes_of(dataset)
        truth.category_ids(classes, self._may_lack)
        if self.with_masks:
            truth.check_masks(classes)
        self.doubts = [*([] if own else check_images(truth, dataset)), *truth.doubts()]
        for doubt in self.doubts:
            logger.warning(doubt)
        self.has_object = truth.has_object(classes)
        if not truth.has_annotation:
            logger.warning(f'{truth.names} has no annotation, so there is nothing to compute: no metric value is given')
        elif not self.has_object:
            logger.warning(f'{truth.names}: no object of the tested classes, so every metric value will be -1')

    def truth(self) -> Truth:
        """The ground truth: of the data set that is tested, or of ``ann_file``."""
        if self._known is None:
            if self.ann_file is None:
                raise ConfigError('CocoMetric has no ground truth: give ann_file, or call use_dataset before')
            content = read_coco(self.ann_file, with_masks=self.with_masks)
            self._known = Truth([Source(self.ann_file, content, None)])
            if self.with_masks:
                self._known.check_masks((self.dataset_meta or {}).get('classes') or ())
        return self._known

    def categories(self) -> tuple[Sequence[str], list[Id | None]]:
        """The names of the classes by label, and the category id of each in the truth; None if it lacks the class."""
        truth = self.truth()
        classes = (self.dataset_meta or {}).get('classes') or list(truth.sources[0].content.categories)
        return classes, truth.category_ids(classes, self._may_lack)

    def coco_file(self, folder: Path) -> str | None:
        """The path of the ground truth as COCO's JSON.

        It is written into ``folder`` if the truth has another format, or is a part of a file.

        None if several data sets are evaluated together, because their image ids may be the same.
        """
        source, *more = self.truth().sources
        if more:
            return None
        if self._coco_file is not None:
            return self._coco_file
        write_coco(source.content, folder / 'truth.json')
        return str(folder / 'truth.json')

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch."""
        self.results += [detections_of(sample, with_masks=self.with_masks) for sample in data_samples]

    def evaluate(self, size: int) -> dict[str, float]:
        """The metric values of the images that all processes have processed since the last call.

        A distributed sampler repeats images so that every process gets the same number. MMEngine would drop them by
        cutting the gathered results to ``size``, which needs their order. ``compute_metrics`` drops them by image id.
        """
        return super().evaluate(sys.maxsize)

    def compute_metrics(self, results: list[Detections]) -> dict[str, float]:
        """The 12 metric values of each kind; none if the truth has no annotation, as of a test set for a challenge.

        The log gets a table of them and one of the classes.
        """
        logger = MMLogger.get_current_instance()
        truth = self.truth()
        found = self._by_position(truth, results)
        classes, cat_ids = self.categories()
        self._check_labels(truth, found, len(cat_ids))
        if self.outfile is not None:
            records = list(_results(found, truth, classes, cat_ids))
            Path(self.outfile).parent.mkdir(parents=True, exist_ok=True)
            write_file(self.outfile, json.dumps(records).encode())
            logger.info(f'{len(records)} detections in {len(found)} images written to {self.outfile}')
        if not truth.has_annotation:
            return {}
        numbers = numbers_of(cat_ids)
        ascending = sorted((one for one in cat_ids if one is not None), key=id_key)
        values: dict[str, float] = {}
        for kind in self.kinds:
            task = numbered(truth, found, classes, numbers, self.max_dets, with_masks=kind == 'segm')
            if not len(task.found):
                logger.warning('There is no detection at all: every metric value is 0, or -1 where there is no object')
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
                evaluation = BACKENDS[self.backend](task)
            self.evaluations[kind] = evaluation._replace(cat_ids=ascending)
            values.update(self._values(kind, evaluation))
        logger.info('\n' + AsciiTable([['metric', 'value'], *([k, f'{v:.4f}'] for k, v in values.items())]).table)
        for kind in self.kinds if self.classwise else ():
            precision = self.evaluations[kind].precision
            rows = {label: precision[:, :, number - 1, 0, -1] for label, number in numbers.items()}
            shown = [label for label, name in enumerate(classes) if label in rows or name != UNUSED_CLASS]
            aps = [(classes[k], _mean(rows[k]) if k in rows else -1.0) for k in shown]
            logger.info('\n' + _class_table(aps, 'mask AP' if kind == 'segm' else 'AP').table)
        return values

    def _by_position(self, truth: Truth, results: list[Detections]) -> dict[int, Detections]:
        """Detections by the position of their image in the truth, in order. An image tested twice counts once.

        Raises:
            DataError: the truth lacks an image, and no other metric measures a part of the data set.
        """
        found: dict[int, Detections] = {}
        for item in results:
            one = Detections(*item)  # gathering makes plain tuples
            if (position := truth.position(one.img_id, one.img_path)) is not None:
                found.setdefault(position, one)
            elif not self._has_others:
                raise truth.lost(one.img_id, one.img_path, 'the tested data set')
        return dict(sorted(found.items()))

    def _check_labels(self, truth: Truth, found: dict[int, Detections], count: int) -> None:
        for one in found.values():
            if len(wrong := one.labels[(one.labels < 0) | (one.labels >= count)]):
                raise DataError(
                    f'{truth.names} has no category for label {wrong[0]}, detected in image {one.img_id}: there are '
                    f'{count} classes; the model and the data set must have the same'
                )

    def _values(self, kind: str, evaluation: CocoEval) -> dict[str, float]:
        """COCO's 12 values in its order, as pycocotools averages them. Area 0 is all sizes; 1 to 3 are s, m and l."""
        precision, recall, iou = evaluation.precision[..., -1], evaluation.recall, evaluation.iou_thresholds
        values = {
            'mAP': precision[..., 0],
            **{f'mAP_{percent}': precision[np.isclose(iou, percent / 100), ..., 0] for percent in (50, 75)},
            **{f'mAP_{size}': precision[..., area] for area, size in enumerate('sml', start=1)},
            **{f'AR@{count}': recall[..., 0, index] for index, count in enumerate(self.max_dets)},
            **{f'AR_{size}': recall[..., area, -1] for area, size in enumerate('sml', start=1)},
        }
        return {f'{kind}_{name}': _mean(array) for name, array in values.items()}


def _results(
    found: dict[int, Detections], truth: Truth, classes: Sequence[str], cat_ids: Sequence[Id | None]
) -> Iterator[dict[str, Any]]:
    """COCO's results with the ids of the annotation files; with image file names if several files are joined."""
    for position, one in found.items():
        image, known = truth.images[position], truth.source_of(position).content.categories
        ids = [known.get(name, cat_id) for name, cat_id in zip(classes, cat_ids, strict=True)]
        joined = {'file_name': image['file_name']} if len(truth.sources) > 1 else {}
        masks = [{}] * len(one.labels) if one.masks is None else [{'segmentation': as_coco(m)} for m in one.masks]
        columns = (column.tolist() for column in (one.xywh, one.scores, one.labels))
        for box, score, label, mask in zip(*columns, masks, strict=True):
            if ids[label] is not None:
                head = {'image_id': image['id'], **joined, 'category_id': ids[label]}
                yield {**head, 'bbox': box, **mask, 'score': score}


def _class_table(rows: list[tuple[str, float]], title: str) -> AsciiTable:
    # A control character, such as a line break, would break the table.
    names = [''.join(c if c.isprintable() else ' ' for c in name) for name, _ in rows]
    cells = [(name, f'{value:.4f}') for name, (_, value) in zip(names, rows, strict=True)]
    cells += [('', '')] * (-len(cells) % CLASS_COLUMNS)
    height = len(cells) // CLASS_COLUMNS
    columns = [cells[start : start + height] for start in range(0, len(cells), height)]
    lines = [[text for cell in line for text in cell] for line in zip(*columns, strict=True)]
    return AsciiTable([['class', title] * CLASS_COLUMNS, *lines])


def _mean(values: np.ndarray) -> float:
    """The mean without COCO's -1, which marks undefined values; -1 if all are undefined."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0


def is_defined(name: str, value: Any) -> bool:
    """Whether ``value`` measures something, so that it may be compared and drawn.

    COCO's values are -1 if there is no object to measure. For another metric -1 is an ordinary number, and NaN or None
    says that there is nothing to measure.
    """
    is_number = value is not None and math.isfinite(value)
    return is_number and (value != -1 or not re.match('(bbox|segm)_(mAP|AR)', name.rpartition('/')[2]))
