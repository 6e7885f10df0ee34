"""A hook of a test that traces every object, and writes the tables while the test runs."""

import csv
import heapq
import math
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor

from frdet.errors import ConfigError, DataError, defined
from frdet.evaluation import CocoMetric
from frdet.evaluation.coco_metric import detections_of
from frdet.evaluation.numbering import Detections
from frdet.insight.store import LARGE, SMALL
from frdet.insight.trace.following import CUT, OTHER_CLASS, REFINEMENT, Rules, Trail
from frdet.insight.trace.matching import ImageTruth, MetricTruth, Outcome, iou_of
from frdet.insight.trace.model import (
    CARDS,
    DETECTION_COLUMNS,
    DETECTIONS,
    FOUND,
    OBJECT_COLUMNS,
    OBJECTS,
    Around,
    Card,
    load_cards,
    save_cards,
)
from frdet.models.detectors import bare
from frdet.models.task_modules.observing import Event
from frdet.structures import GroundTruth, flip_boxes, scale_boxes, to_network, to_original

NO_DETECTION, POOR_BOX, OUTRANKED = 'no detection', 'poor box', 'outranked'
TOUCHING = 0.1  # IoU from which on a detection of the object's class is a poor box of it
NEAR = {'anchor': 3, 'proposal': 5, 'detection': 5, 'object': 5}  # boxes on a card, by kind


class TraceHook(Hook):
    """Writes ``objects.csv``, ``detections.csv`` and ``cards.json``. Of several processes, the first joins the parts.

    Args:
        out: folder of the files.
        iou: from which IoU on a detection finds an object.
        min_size: see ``Summary.min_size``.
        cards: number of objects of every stage whose surroundings are kept.
        starts: whether the model gets the weights that a training starts from.
    """

    priority = 'LOWEST'

    def __init__(self, out: Path, *, iou: float, min_size: float, cards: int, starts: bool):
        self.out, self.iou, self.min_size, self.num_cards, self.starts = out, iou, min_size, cards, starts
        self.events: list[Event] = []
        self.stages: dict[str, None] = {}  # names, in order
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.metrics: dict[str, float] = {}
        self.notes: list[str] = []
        self.images = 0
        self._cards: dict[str, list[tuple[int, str, str, Card]]] = {}
        self._seen: set[int] = set()

    def before_run(self, runner: Runner) -> None:
        """Draw the weights if there is no checkpoint."""
        if self.starts:
            bare(runner.model).init_weights()

    def before_test(self, runner: Runner) -> None:
        """Read the ground truth, and begin the tables."""
        metrics = [one for one in runner.test_loop.evaluator.metrics if isinstance(one, CocoMetric)]
        metric = metrics[0] if metrics else CocoMetric()
        if not metrics:
            metric.dataset_meta = runner.test_loop.evaluator.dataset_meta
            metric.use_dataset(runner.test_loop.dataloader.dataset)
        if not metric.truth().has_annotation:
            raise DataError(
                f'{metric.truth().names} has no annotation, so there is no object to trace: test on data with boxes, '
                'for example by --split val'
            )
        self.truth = MetricTruth(metric)
        self.model = bare(runner.model)
        self.rules = rules_of(self.model, iou=self.iou, min_size=self.min_size)
        self._files = [
            (self.out / _part(name)).open('w', encoding='utf-8', newline='') for name in (OBJECTS, DETECTIONS)
        ]
        self._objects, self._detections = (csv.writer(file) for file in self._files)

    def before_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Forget the events of the last batch."""
        self.events.clear()

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Trace the objects of a batch."""
        samples = list(outputs or ())
        if any('pred_instances' not in sample for sample in samples):
            raise ConfigError(
                f'{defined(type(self.model))} cannot be traced: its results have no pred_instances, which hold bboxes, '
                'scores and labels'
            )
        found = [detections_of(sample.to_dict()) for sample in samples]
        places = [self.truth.truth.position(one.img_id, one.img_path) for one in found]
        places = [None if place in self._seen else place for place in places]
        self._seen.update(place for place in places if place is not None)
        self.images += sum(place is not None for place in places)
        truth = [self.truth.of(place) if place is not None else _NOTHING for place in places]
        outcomes = self.truth.judge(found, truth, self.iou)
        batch = _Batch(self, samples, found, truth, outcomes)
        for index, place in enumerate(places):
            if place is not None:
                self._write(batch, index, self.truth.truth.images[place]['file_name'])

    def _write(self, batch: '_Batch', index: int, file: str) -> None:
        image = str(batch.found[index].img_id)
        for row in batch.objects(index):
            self.counts[row['stage']] += 1
            self._objects.writerow(_cells({'image': image, 'file': file, **row}, OBJECT_COLUMNS))
            if self._wants_card(row['stage'], image, row['id']):
                self._keep_card(row['stage'], batch.card(index, row['number']))
        for row in batch.false_positives(index):
            self.kinds[row['kind']] += 1
            self._detections.writerow(_cells({'image': image, 'file': file, **row}, DETECTION_COLUMNS))

    def _wants_card(self, stage: str, image: str, name: str) -> bool:
        """Whether it is among the first by a hash, so that the choice depends on no order of the images."""
        heap = self._cards.setdefault(stage, [])
        return len(heap) < self.num_cards or (self.num_cards > 0 and -_hash(image, name) > heap[0][0])

    def _keep_card(self, stage: str, card: Card) -> None:
        heap = self._cards[stage]
        heapq.heappush(heap, (-_hash(card.image, card.object), card.image, card.object, card))
        if len(heap) > self.num_cards:
            heapq.heappop(heap)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Join the parts of all processes."""
        for file in self._files:
            file.close()
        self.metrics = dict(metrics or {})
        cards = [entry[-1] for heap in self._cards.values() for entry in sorted(heap, reverse=True)]
        save_cards(cards, self.out, _part(CARDS))
        barrier()
        if is_main_process():
            self._join()

    def _join(self) -> None:
        """Write the tables from the parts. A distributed sampler repeats images, so that an image may be in two."""
        counts: dict[str, Counter[str]] = {}
        for name, columns, counted in ((OBJECTS, OBJECT_COLUMNS, 'stage'), (DETECTIONS, DETECTION_COLUMNS, 'kind')):
            seen: set[tuple[str, str]] = set()
            counts[name] = Counter()
            column = list(columns).index(counted)
            place = [list(columns).index(key) for key in ('image', 'file')]
            with open(self.out / name, 'w', encoding='utf-8', newline='') as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                for rank in range(get_world_size()):
                    own: set[tuple[str, str]] = set()
                    with open(self.out / _part(name, rank), encoding='utf-8', newline='') as part:
                        for row in csv.reader(part):
                            key = row[place[0]], row[place[1]]
                            if key not in seen:
                                own.add(key)
                                counts[name][row[column]] += 1
                                writer.writerow(row)
                    seen |= own
                    (self.out / _part(name, rank)).unlink()
        self.counts, self.kinds = counts[OBJECTS], counts[DETECTIONS]
        cards: dict[tuple[str, str], Card] = {}
        for rank in range(get_world_size()):
            cards |= {(card.image, card.object): card for card in load_cards(self.out, _part(CARDS, rank))}
            (self.out / _part(CARDS, rank)).unlink()
        save_cards(list(cards.values()), self.out)


_NOTHING = ImageTruth([], np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, bool))


def _part(name: str, rank: int | None = None) -> str:
    return f'{name}.{get_rank() if rank is None else rank}'


def _hash(image: str, name: str) -> int:
    return zlib.crc32(f'{image} {name}'.encode())


def _cells(row: dict[str, Any], columns: dict[str, type]) -> list[Any]:
    def text(value: Any) -> Any:
        if isinstance(value, float):
            return '' if math.isnan(value) else f'{value:.6g}'
        return '' if value is None else value

    return [text(row.get(name)) for name in columns]


def rules_of(model: Any, *, iou: float, min_size: float) -> Rules:
    """When a box fits an object, by the assigners of a model's heads."""
    modules = list(model.modules())
    first = next((m for m in modules if hasattr(m, 'anchor_generator') and hasattr(m, 'assigner')), None)
    second = next((m for m in modules if hasattr(m, 'roi_extractor')), None)
    assigners = [getattr(second, 'assigner', None), *(getattr(second, 'assigners', None) or ())]
    limits = [one.pos_iou_thr for one in assigners if hasattr(one, 'pos_iou_thr')]
    strides = getattr(first.anchor_generator, 'strides', ()) if first is not None else ()
    levels = [f'p{math.log2(stride):.0f}' for stride in strides]
    return Rules(iou, min_size, limits[0] if limits else 0.5, first.assigner if first is not None else None, levels)


class _Batch:
    """The objects and detections of a batch, with the trail of its objects."""

    def __init__(
        self,
        hook: TraceHook,
        samples: Sequence[Any],
        found: Sequence[Detections],
        truth: Sequence[ImageTruth],
        outcomes: Sequence[Outcome],
    ):
        self.hook, self.samples, self.found, self.truth, self.outcomes = hook, samples, found, truth, outcomes
        self.rows = [np.flatnonzero(one.counts) for one in truth]  # annotations that are objects
        classes = hook.truth.classes
        self.names = [
            [f'{classes[one.labels[row]]} {one.names[row]}' for row in rows]
            for one, rows in zip(truth, self.rows, strict=True)
        ]
        events = hook.events if all(_batch_size(e) in (None, len(samples)) for e in hook.events) else []
        self.trail = Trail(events, self._ground_truth(), self.names, classes, hook.rules)
        lost = self.trail.lost_at().cpu()
        self.lost = lost.tolist()
        self.numbers = {name: values.float().cpu().numpy() for name, values in self.trail.numbers.items()}
        names = [name for step in self.trail.steps for name in step.names]
        rest = [] if self.trail.detections is not None else [NO_DETECTION, OTHER_CLASS, POOR_BOX]
        cut = [] if CUT in names else [CUT]
        for name in (*names, *rest, *cut, OUTRANKED, FOUND):
            hook.stages.setdefault(name)

    def _ground_truth(self) -> GroundTruth:
        device = next((x.device for event in self.hook.events for x in event if isinstance(x, Tensor)), None)
        most = max(1, *(len(rows) for rows in self.rows))
        boxes = torch.zeros(len(self.rows), most, 4)
        labels = torch.zeros(len(self.rows), most, dtype=torch.long)
        valid = torch.zeros(len(self.rows), most, dtype=torch.bool)
        for index, rows in enumerate(self.rows):
            sample, count = self.samples[index], len(rows)
            xywh = torch.from_numpy(self.truth[index].xywh[rows])
            objects = InstanceData(bboxes=torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1))
            flip = bool(sample.get('flip', False))
            if 'img_shape' in sample and 'ori_shape' in sample:
                objects = to_network(objects, sample.img_shape, sample.ori_shape, flip=flip)
            boxes[index, :count] = objects.bboxes.float()
            labels[index, :count] = torch.from_numpy(self.truth[index].labels[rows])
            valid[index, :count] = True
        return GroundTruth(boxes.to(device), labels.to(device), valid.to(device))

    def objects(self, index: int) -> list[dict[str, Any]]:
        """The rows of ``objects.csv`` of an image, each with the ``number`` of the object."""
        truth, outcome, found = self.truth[index], self.outcomes[index], self.found[index]
        crowding = iou_of(truth.xywh[self.rows[index]], truth.xywh[self.rows[index]])
        np.fill_diagonal(crowding, 0)
        listed = []
        for number, row in enumerate(self.rows[index].tolist()):
            detection, stage, why = self._end_of(index, number, row)
            left, top, width, height = truth.xywh[row].tolist()
            entry = {
                'number': number,
                'id': truth.names[row],
                'class': self.hook.truth.classes[truth.labels[row]],
                'left': left,
                'top': top,
                'width': width,
                'height': height,
                'size': ('small', 'medium', 'large')[int(np.digitize(truth.area[row], (SMALL, LARGE)))],
                'crowding': float(crowding[number].max(initial=0)),
                'stage': stage,
                'why': why,
            }
            for name, values in self.trail.numbers.items():
                cached = self.numbers[name]
                entry[name] = float(cached[index, number])
                if name == 'other_class':
                    entry[name] = None if math.isnan(entry[name]) else self.hook.truth.classes[int(entry[name])]
                elif name == 'anchor_rank' and math.isnan(entry[name]):
                    entry[name] = float(values[index, number])  # ``why`` may have looked it up
                if name == 'anchor_score' and math.isnan(entry[name]):
                    entry[name] = float(values[index, number])
            if detection is not None:
                entry['detection_iou'] = float(outcome.overlaps[detection, row])
                entry['detection_score'] = float(found.scores[detection])
                entry['detection_rank'] = int(detection) + 1
            listed.append(entry)
        return listed

    def _end_of(self, index: int, number: int, row: int) -> tuple[int | None, str, str]:
        """The detection of an object, the stage that lost it, and the deciding numbers."""
        truth, outcome, found = self.truth[index], self.outcomes[index], self.found[index]
        if len(hit := np.flatnonzero(outcome.object == row)):
            return int(hit[0]), FOUND, ''
        is_own = found.labels == truth.labels[row]
        fitting = np.flatnonzero(is_own & (outcome.overlaps[:, row] >= self.hook.iou))
        if len(fitting):
            best = int(fitting[found.scores[fitting].argmax()])
            rank = 1 + int((found.scores[is_own] > found.scores[best]).sum())
            most = self.hook.truth.max_dets[-1]
            if rank > most and outcome.object[best] < 0:
                return best, CUT, f'its detection has rank {rank} of its class, and the metric counts {most}'
            other = outcome.object[best]
            name = 'another object' if other < 0 else self._name(index, other)
            return best, OUTRANKED, f'its detection of score {found.scores[best]:.3f} found {name}'
        step = self.lost[index][number]
        if step < len(self.trail.steps) and (step > 0 or self.trail.detections is not None):
            return None, *self.trail.explain(step, index, number)
        if self.trail.detections is not None:
            iou = outcome.overlaps[is_own, row].max(initial=0)
            return None, REFINEMENT, f'IoU {iou:.4f} in pixels of the image, and {self.hook.iou:g} is needed'
        return self._by_detections(index, number, row, is_small=step == 0)

    def _by_detections(self, index: int, number: int, row: int, *, is_small: bool) -> tuple[int | None, str, str]:
        """The stage of an object if only the detections are known."""
        overlaps, found = self.outcomes[index].overlaps[:, row], self.found[index]
        is_own = found.labels == self.truth[index].labels[row]
        if len(other := np.flatnonzero(overlaps >= self.hook.iou)):
            best = int(other[found.scores[other].argmax()])
            name = self.hook.truth.classes[found.labels[best]]
            return None, OTHER_CLASS, f'detected as {name}, score {found.scores[best]:.3f}, IoU {overlaps[best]:.2f}'
        if len(own := np.flatnonzero(is_own & (overlaps >= TOUCHING))):
            best = int(own[overlaps[own].argmax()])
            needed = f'{self.hook.iou:g} is needed'
            return None, POOR_BOX, f'IoU {overlaps[best]:.2f}, score {found.scores[best]:.3f}, and {needed}'
        if is_small:
            return None, *self.trail.explain(0, index, number)
        return None, NO_DETECTION, f'the nearest detection has IoU {overlaps.max(initial=0):.2f}'

    def _name(self, index: int, row: int) -> str:
        truth = self.truth[index]
        return f'{self.hook.truth.classes[truth.labels[row]]} {truth.names[row]}'

    def false_positives(self, index: int) -> list[dict[str, Any]]:
        """The rows of ``detections.csv`` of an image."""
        outcome, found, truth = self.outcomes[index], self.found[index], self.truth[index]
        rows = np.flatnonzero(outcome.kind != '')
        origin = self._origins(index) if len(rows) else {}
        listed = []
        for row in rows.tolist():
            nearest = int(outcome.nearest[row])
            entry = {
                'class': self.hook.truth.classes[found.labels[row]],
                'score': float(found.scores[row]),
                **dict(zip(('left', 'top', 'width', 'height'), found.xywh[row].tolist(), strict=True)),
                'kind': outcome.kind[row],
                'object': truth.names[nearest] if nearest >= 0 else '',
                'iou': float(outcome.iou[row]),
                **{name: values[row] for name, values in origin.items()},
            }
            listed.append(entry)
        return listed

    def _origins(self, index: int) -> dict[str, list[Any]]:
        """The proposals and anchors that the detections of an image came from; empty if they are not known."""
        trail, sample = self.trail, self.samples[index]
        told = trail.detections
        if told is None:
            return {}
        rows = told.there[index].nonzero().squeeze(1)
        boxes = told.boxes[index].flatten(0, 1)[told.index[index, rows]]
        there = InstanceData(bboxes=boxes, rows=rows)
        kept = to_original(there, sample.img_shape, sample.ori_shape, flip=bool(sample.get('flip', False))).rows
        if len(kept) != len(self.found[index].labels):
            return {}
        box = told.index[index, kept] // told.scores.shape[2]
        origin: dict[str, list[Any]] = {}
        if (proposals := trail.proposals) is not None:
            if proposals.index.shape[1] != told.scores.shape[1]:
                return {}
            origin['proposal_rank'] = (box + 1).tolist()
            box = proposals.index[index, box]
            count = proposals.boxes.shape[1]
        else:
            count = told.scores.shape[1]
        if trail.top is None or trail.top.shape[1] != count or trail.anchors is None:
            return origin
        anchor = trail.top[index, box]
        width, height = (trail.anchors[anchor, 2:] - trail.anchors[anchor, :2]).unbind(1)
        scores, level = trail.anchor_scores(index)
        names = self.hook.rules.levels
        return {
            **origin,
            'level': [names[i] if i < len(names) else f'level {i}' for i in level[anchor].tolist()],
            'anchor_width': width.tolist(),
            'anchor_height': height.tolist(),
            'anchor_score': scores[anchor].tolist(),
        }

    def card(self, index: int, number: int) -> Card:
        """The surroundings of an object."""
        row, trail, found = int(self.rows[index][number]), self.trail, self.found[index]
        truth, sample, outcome = self.truth[index], self.samples[index], self.outcomes[index]
        around: list[Around] = []
        if trail.anchors is not None:
            iou, place = trail.nearest_anchors(index, number, NEAR['anchor'])
            boxes = _in_image(trail.anchors[place], sample)
            around += [Around('anchor', b, f'anchor, IoU {x:.2f}') for b, x in zip(boxes, iou.tolist(), strict=True)]
        if (told := trail.proposals) is not None:
            iou, place = trail.iou[index, number].topk(min(NEAR['proposal'], trail.iou.shape[2]))
            boxes = _in_image(told.boxes[index, told.index[index, place]], sample)
            around += [
                Around('proposal', b, f'proposal, rank {p + 1}, IoU {x:.2f}')
                for b, p, x in zip(boxes, place.tolist(), iou.tolist(), strict=True)
                if x > 0
            ]
        overlaps = outcome.overlaps[:, row]
        for near in np.argsort(-overlaps, kind='stable')[: NEAR['detection']].tolist():
            if overlaps[near] > 0:
                name = self.hook.truth.classes[found.labels[near]]
                text = f'detection, {name} {found.scores[near]:.2f}, IoU {overlaps[near]:.2f}'
                around.append(Around('detection', _xyxy(found.xywh[near]), text))
        others = iou_of(truth.xywh[row][None], truth.xywh)[0]
        others[row] = 0
        for near in np.argsort(-others, kind='stable')[: NEAR['object']].tolist():
            if others[near] > 0:
                around.append(Around('object', _xyxy(truth.xywh[near]), f'object, {self._name(index, near)}'))
        return Card(truth.names[row], str(found.img_id), str(found.img_path or ''), around)


def _batch_size(event: Event) -> int | None:
    """B; None of an event that is about all images."""
    first = event[1] if isinstance(event[0], str) else event[0]
    return first.shape[0] if isinstance(first, Tensor) else None


def _in_image(boxes: Tensor, sample: Any) -> list[list[float]]:
    """Boxes of the network's input in pixels of the original image, not clipped."""
    (height, width), (ori_height, ori_width) = sample.img_shape[:2], sample.ori_shape[:2]
    boxes = flip_boxes(boxes, width) if sample.get('flip', False) else boxes
    return [[round(x, 1) for x in box] for box in scale_boxes(boxes, (ori_width / width, ori_height / height)).tolist()]


def _xyxy(xywh: np.ndarray) -> list[float]:
    left, top, width, height = xywh.tolist()
    return [round(left, 1), round(top, 1), round(left + width, 1), round(top + height, 1)]
