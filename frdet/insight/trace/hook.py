"""A hook of a test that traces every object, and writes the tables while the test runs."""

import csv
import heapq
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.errors import DataError
from frdet.evaluation import CocoMetric
from frdet.evaluation.coco_metric import detections_of
from frdet.evaluation.numbering import Detections
from frdet.insight.trace.matching import ImageTruth, MetricTruth
from frdet.insight.trace.model import (
    DETECTION_COLUMNS,
    DETECTIONS,
    OBJECT_COLUMNS,
    OBJECTS,
    Card,
    save_cards,
)
from frdet.insight.trace.rows import Batch, rules_of
from frdet.models.detectors import bare
from frdet.models.task_modules.observing import Event

#: For each stage a heap of some of its objects: the negative hash, the place of the image, the number there, the card.
Cards = dict[str, list[tuple[int, int, int, Card]]]
#: The tables with the column that is counted.
TABLES = {OBJECTS: (OBJECT_COLUMNS, 'stage'), DETECTIONS: (DETECTION_COLUMNS, 'kind')}


class TraceHook(Hook):
    """Writes ``objects.csv``, ``detections.csv`` and ``cards.json``. Of several processes, the first joins the parts.

    Args:
        out: folder of the files.
        iou: from which IoU on a detection finds an object.
        min_size: see ``Summary.min_size``.
        cards: number of objects of every stage whose surroundings are kept.
        starts: whether the model gets the weights that a training starts from.

    Attributes:
        events: what the detector tells; an observer appends to it.
        stages: names of the stages in their order.
        unknown: what the detector does not tell, as a sentence without its name; None if it tells all.
        counts: objects by stage, kinds: false positives by kind, metrics, images: once the test has ended.
    """

    priority = 'LOWEST'

    def __init__(self, out: Path, *, iou: float, min_size: float, cards: int, starts: bool):
        self.out, self.iou, self.min_size, self.num_cards, self.starts = out, iou, min_size, cards, starts
        self.events: list[Event] = []
        self.stages: list[str] = []
        self.unknown: str | None = None
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.metrics: dict[str, float] = {}
        self._cards: Cards = {}
        self._seen: set[int] = set()

    def before_run(self, runner: Runner) -> None:
        """Draw the weights if there is no checkpoint."""
        if self.starts:
            bare(runner.model).init_weights()

    def before_test(self, runner: Runner) -> None:
        """Read the ground truth, and begin the tables."""
        evaluator = runner.test_loop.evaluator
        metric = next((one for one in evaluator.metrics if isinstance(one, CocoMetric)), None)
        if metric is None:
            metric = CocoMetric()
            metric.dataset_meta = evaluator.dataset_meta
            metric.use_dataset(runner.test_loop.dataloader.dataset)
        if not metric.truth().has_annotation:
            raise DataError(
                f'{metric.truth().names} has no annotation, so there is no object to trace: give data with boxes, for '
                'example by --split val'
            )
        self.truth = MetricTruth(metric)
        self.images = len(runner.test_loop.dataloader.dataset)
        self.model = bare(runner.model)
        self.rules = rules_of(self.model, iou=self.iou, min_size=self.min_size)
        self._files = {name: (self.out / _part(name)).open('w', encoding='utf-8', newline='') for name in TABLES}
        self._writers = {name: csv.writer(file) for name, file in self._files.items()}

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Forget the events of the last batch."""
        self.events.clear()

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Trace the objects of a batch."""
        samples = list(outputs or ())
        found = [_best_first(detections_of(sample.to_dict())) for sample in samples]
        places = [self.truth.truth.position(one.img_id, one.img_path) for one in found]
        new = [place if place is not None and place not in self._seen else None for place in places]
        self._seen.update(place for place in new if place is not None)
        truth = [NOTHING if place is None else self.truth.of(place) for place in new]
        batch = Batch(self.events, samples, found, truth, self.truth, self.rules)
        self._add_stages(batch.stages)
        self.unknown = batch.unknown or self.unknown
        for index, place in enumerate(new):
            if place is not None:
                self._write(batch, index, place)

    def _add_stages(self, names: Sequence[str]) -> None:
        """Put names that are new behind those that they follow: a batch may lack a stage of the user's detector."""
        for before, name in zip(['', *names], names, strict=False):
            if name not in self.stages:
                self.stages.insert(self.stages.index(before) + 1 if before else 0, name)

    def _write(self, batch: Batch, index: int, place: int) -> None:
        where = {'image': str(batch.found[index].img_id), 'file': self.truth.truth.images[place]['file_name']}
        for number, row in enumerate(batch.objects(index)):
            self._append(OBJECTS, place, {**where, **row})
            key = zlib.crc32(f'{where["image"]} {row["id"]}'.encode())
            heap = self._cards.setdefault(row['stage'], [])
            # The first ones by a hash, so that the choice depends on no order of the images.
            if self.num_cards and (len(heap) < self.num_cards or -key > heap[0][0]):
                heapq.heappush(heap, (-key, place, number, batch.card(index, number, place)))
                if len(heap) > self.num_cards:
                    heapq.heappop(heap)
        for row in batch.false_positives(index):
            self._append(DETECTIONS, place, {**where, **row})

    def _append(self, name: str, place: int, row: dict[str, Any]) -> None:
        """Write a row to the part of this process, behind the place of its image."""
        cells = (_cell(row.get(column), kind) for column, kind in TABLES[name][0].items())
        self._writers[name].writerow([place, *cells])

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Join the parts of all processes."""
        self.events.clear()
        for file in self._files.values():
            file.close()
        self.metrics = dict(metrics or {})
        for names in all_gather_object(self.stages):
            self._add_stages(names)
        gathered = all_gather_object(self._cards)
        if is_main_process():
            self.counts, self.kinds = (self._join(name) for name in TABLES)
            save_cards([card for stage in self.stages for card in self._first_cards(stage, gathered)], self.out)

    def _join(self, name: str) -> Counter[str]:
        """Write a table from its parts. An image that a distributed sampler repeats is in two of them."""
        columns, counted = TABLES[name]
        place = list(columns).index(counted)
        counts: Counter[str] = Counter()
        seen: set[str] = set()
        with (self.out / name).open('w', encoding='utf-8', newline='') as table:
            writer = csv.writer(table)
            writer.writerow(columns)
            for rank in range(get_world_size()):
                part = self.out / _part(name, rank)
                images: set[str] = set()
                with part.open(encoding='utf-8', newline='') as file:
                    for image, *row in csv.reader(file):
                        if image not in seen:
                            images.add(image)
                            counts[row[place]] += 1
                            writer.writerow(row)
                seen |= images
                part.unlink()
        return counts

    def _first_cards(self, stage: str, gathered: Sequence[Cards]) -> list[Card]:
        """The cards of a stage with the first hashes, of all processes."""
        by_key = {entry[:3]: entry[-1] for cards in gathered for entry in cards.get(stage, ())}
        return [by_key[key] for key in sorted(by_key, reverse=True)[: self.num_cards]]


#: The annotations of an image that is not traced.
NOTHING = ImageTruth([], np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))


def _best_first(found: Detections) -> Detections:
    """Models that are no ``Detector`` may give them in any order."""
    order = np.argsort(-found.scores, kind='stable')
    return found._replace(xywh=found.xywh[order], scores=found.scores[order], labels=found.labels[order])


def _part(name: str, rank: int | None = None) -> str:
    return f'{name}.{get_rank() if rank is None else rank}'


def _cell(value: Any, kind: type) -> Any:
    """Text of a number, with six digits if it has a fraction; nothing for None and NaN."""
    if value is None or value != value:  # NaN differs from itself
        return ''
    return f'{value:.6g}' if kind is float else kind(value)
