"""The rows of a batch for the tables of a trace, and the cards of its objects."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from frdet.datasets.masks import encode_mask, unpack_mask
from frdet.evaluation.numbering import Detections
from frdet.insight.errors import xyxy
from frdet.insight.store import LARGE, SMALL
from frdet.insight.trace.following import follow
from frdet.insight.trace.matching import ImageTruth, MetricTruth, iou_of
from frdet.insight.trace.model import Around, Card
from frdet.insight.trace.stages import CUT, FOUND, NO_DETECTION, OTHER_CLASS, OUTRANKED, POOR_BOX, REFINEMENT
from frdet.insight.trace.trail import Rules, Trail
from frdet.models.task_modules.observing import Event
from frdet.structures import GroundTruth, clip_boxes, flip_boxes, scale_boxes, to_network, to_original

TOUCHING = 0.1  # IoU from which on a detection of the object's class is a poor box of it
NEAR = {'anchor': 3, 'proposal': 5, 'detection': 5, 'object': 5}  # boxes on a card, by kind


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


class Batch:
    """The objects and detections of a batch, with the trail of its objects.

    Args:
        events: what the detector told.
        samples: its results.
        found: the detections in them, best score first.
        truth: the annotations of the images.
        known: the ground truth of all images.
        rules: when a box fits.
    """

    def __init__(
        self,
        events: Sequence[Event],
        samples: Sequence[Any],
        found: Sequence[Detections],
        truth: Sequence[ImageTruth],
        known: MetricTruth,
        rules: Rules,
    ):
        self.samples, self.found, self.truth, self.rules = samples, found, truth, rules
        self.known, self.classes, self.max_dets = known, known.classes, known.max_dets[-1]
        self.outcomes = known.judge(found, truth, rules.iou)
        self.rows = [np.flatnonzero(one.counts) for one in truth]  # annotations that are objects
        names = [[self._name(index, row) for row in rows.tolist()] for index, rows in enumerate(self.rows)]
        told = [event for event in events if _batch_size(event) in (None, len(samples))]
        self._is_partly_told = len(told) < len(events)
        self.trail = follow(Trail(told, self._ground_truth(told), names, self.classes, rules))
        self._lost = self.trail.lost_at().tolist()
        self._numbers = {name: values.tolist() for name, values in self.trail.numbers.items()}

    @property
    def stages(self) -> list[str]:
        """The names of all stages in their order."""
        names = [name for step in self.trail.steps for name in step.names]
        unknown = [] if self.trail.detections is not None else [NO_DETECTION, OTHER_CLASS, POOR_BOX]
        return list(dict.fromkeys([*names, *unknown, CUT, OUTRANKED, FOUND]))

    @property
    def unknown(self) -> str | None:
        """What the detector does not tell, as a sentence without its name."""
        if self._is_partly_told:
            return 'tells selections of single images, and not of the whole batch: these stages are left out'
        if self.trail.detections is None:
            return 'does not tell how it selects boxes: only its detections are known'
        if self.trail.top is None:
            return 'does not tell which anchors it keeps'
        return None

    def _ground_truth(self, events: Sequence[Event]) -> GroundTruth:
        """The objects in pixels of the network's input, where the boxes of the events are."""
        flat = [one for event in events for value in event for one in (value if isinstance(value, list) else [value])]
        device = next((value.device for value in flat if isinstance(value, Tensor)), None)
        most = max(1, *(len(rows) for rows in self.rows))
        boxes = torch.zeros(len(self.rows), most, 4)
        labels = torch.zeros(len(self.rows), most, dtype=torch.long)
        valid = torch.zeros(len(self.rows), most, dtype=torch.bool)
        for index, rows in enumerate(self.rows):
            sample, count = self.samples[index], len(rows)
            corners = torch.from_numpy(xyxy(self.truth[index].xywh[rows]))
            objects = InstanceData(bboxes=corners)
            if 'img_shape' in sample and 'ori_shape' in sample:
                objects = to_network(objects, sample.img_shape, sample.ori_shape, flip=bool(sample.get('flip', False)))
                # As in training: what lies beyond the image cannot be found. The metric compares with the whole box.
                objects.bboxes = clip_boxes(objects.bboxes, torch.tensor(sample.img_shape[:2]))
            boxes[index, :count] = objects.bboxes.float()
            labels[index, :count] = torch.from_numpy(self.truth[index].labels[rows])
            valid[index, :count] = True
        return GroundTruth(boxes.to(device), labels.to(device), valid.to(device))

    def objects(self, index: int) -> list[dict[str, Any]]:
        """The rows of ``objects.csv`` of an image, in the order of its objects."""
        truth, outcome, found = self.truth[index], self.outcomes[index], self.found[index]
        xywh = truth.xywh[self.rows[index]]
        crowding = iou_of(xywh, xywh)
        np.fill_diagonal(crowding, 0)
        listed = []
        for number, row in enumerate(self.rows[index].tolist()):
            stage, why, detection = self._end_of(index, number, row)
            entry = {
                'id': truth.names[row],
                'class': self.classes[truth.labels[row]],
                **dict(zip(('left', 'top', 'width', 'height'), xywh[number].tolist(), strict=True)),
                'size': ('small', 'medium', 'large')[int(np.digitize(truth.area[row], (SMALL, LARGE)))],
                'crowding': float(crowding[number].max(initial=0)),
                'stage': stage,
                'why': why,
                **{name: values[index][number] for name, values in self._numbers.items()},
            }
            other = entry.get('other_class', math.nan)
            entry['other_class'] = None if math.isnan(other) else self.classes[int(other)]
            if detection is not None:
                entry['detection_iou'] = float(outcome.overlaps[detection, row])
                entry['detection_score'] = float(found.scores[detection])
                entry['detection_rank'] = detection + 1
            listed.append(entry)
        return listed

    def _end_of(self, index: int, number: int, row: int) -> tuple[str, str, int | None]:
        """The stage that lost an object, the deciding numbers, and its detection."""
        outcome, found, needed = self.outcomes[index], self.found[index], self.rules.iou
        if len(hit := np.flatnonzero(outcome.found == row)):
            return FOUND, '', int(hit[0])
        is_own = found.labels == self.truth[index].labels[row]
        if len(fitting := np.flatnonzero(is_own & (outcome.overlaps[:, row] >= needed))):
            best = int(fitting[found.scores[fitting].argmax()])
            if outcome.found[best] >= 0:
                other = self._name(index, outcome.found[best])
                return OUTRANKED, f'its detection of score {found.scores[best]:.3f} found {other}', best
            rank = 1 + int(is_own[:best].sum())  # equal scores keep their order
            return CUT, f'its detection has rank {rank:,} of its class, and the metric counts {self.max_dets}', best
        step = self._lost[index][number]
        told_all = self.trail.detections is not None
        if step < len(self.trail.steps) and (step > 0 or told_all):
            return *self.trail.explain(step, index, number), None
        if told_all:
            iou = outcome.overlaps[is_own, row].max(initial=0)
            return REFINEMENT, f'IoU {iou:.4f} in pixels of the image, and {needed:g} is needed', None
        if len(fitting := np.flatnonzero(outcome.overlaps[:, row] >= needed)):
            best = int(fitting[found.scores[fitting].argmax()])
            name = self.classes[found.labels[best]]
            return OTHER_CLASS, f'detected as {name}, score {found.scores[best]:.3f}', None
        if len(own := np.flatnonzero(is_own & (outcome.overlaps[:, row] >= TOUCHING))):
            best = int(own[outcome.overlaps[own, row].argmax()])
            iou, score = outcome.overlaps[best, row], found.scores[best]
            return POOR_BOX, f'IoU {iou:.2f}, score {score:.3f}, and IoU {needed:g} is needed', None
        if step == 0:
            return *self.trail.explain(0, index, number), None
        return NO_DETECTION, f'the nearest detection has IoU {outcome.overlaps[:, row].max(initial=0):.2f}', None

    def _name(self, index: int, row: int) -> str:
        truth = self.truth[index]
        return f'{self.classes[truth.labels[row]]} {truth.names[row]}'

    def false_positives(self, index: int) -> list[dict[str, Any]]:
        """The rows of ``detections.csv`` of an image."""
        outcome, found, names = self.outcomes[index], self.found[index], self.truth[index].names
        rows = np.flatnonzero(outcome.kind != '').tolist()
        origins = self._origins(index) if rows else {}
        return [
            {
                'class': self.classes[found.labels[row]],
                'score': float(found.scores[row]),
                **dict(zip(('left', 'top', 'width', 'height'), found.xywh[row].tolist(), strict=True)),
                'kind': outcome.kind[row],
                'object': names[outcome.nearest[row]] if outcome.nearest[row] >= 0 else '',
                'iou': float(outcome.iou[row]),
                **{name: values[row] for name, values in origins.items()},
            }
            for row in rows
        ]

    def _origins(self, index: int) -> dict[str, list[Any]]:
        """The proposals and anchors that the detections of an image came from; empty if they are not known."""
        trail, told = self.trail, self.trail.detections
        if told is None:
            return {}
        place = told.index[index][told.there[index]]
        if len(place) != len(self.found[index].labels):  # boxes that are empty in the image are dropped
            there = InstanceData(bboxes=told.boxes[index].flatten(0, 1)[place], place=place)
            sample = self.samples[index]
            place = to_original(there, sample.img_shape, sample.ori_shape, flip=bool(sample.get('flip', False))).place
        if len(place) != len(self.found[index].labels):  # the detector drops some of them by a rule of its own
            return {}
        box = place // told.scores.shape[2]
        origins: dict[str, list[Any]] = {}
        candidates = told.scores.shape[1]
        if (proposals := trail.proposals) is not None:
            if proposals.index.shape[1] != candidates:
                return {}
            origins['proposal_rank'] = (box + 1).tolist()
            box, candidates = proposals.index[index, box], proposals.boxes.shape[1]
        if trail.anchors is None or trail.top is None or trail.top.shape[1] != candidates:
            return origins
        anchor = trail.top[index, box]
        width, height = (trail.anchors[anchor, 2:] - trail.anchors[anchor, :2]).unbind(1)
        return {
            **origins,
            'level': trail.level_of(anchor),
            'anchor_width': width.tolist(),
            'anchor_height': height.tolist(),
            'anchor_score': trail.anchor_scores(index, anchor).tolist(),
        }

    def card(self, index: int, number: int, position: int) -> Card:
        """The surroundings of an object in the image at ``position`` of the ground truth."""
        row, trail, found, sample = self.rows[index][number], self.trail, self.found[index], self.samples[index]
        near: list[tuple[str, Any, str, float, Any]] = []
        if trail.anchors is not None:
            ious, place = trail.anchor_ious(index, number).topk(min(NEAR['anchor'], len(trail.anchors)))
            boxes = _in_image(trail.anchors[place], sample)
            near += [('anchor', box, 'anchor', iou, None) for box, iou in zip(boxes, ious.tolist(), strict=True)]
        if (told := trail.proposals) is not None and trail.given_iou is not None:
            ious, place = trail.given_iou[index, number].topk(min(NEAR['proposal'], told.index.shape[1]))
            boxes = _in_image(told.boxes[index, told.index[index, place]], sample)
            ranked = zip(boxes, place.tolist(), ious.tolist(), strict=True)
            near += [('proposal', box, f'proposal, rank {rank + 1}', iou, None) for box, rank, iou in ranked]
        overlaps = self.outcomes[index].overlaps[:, row]
        for one in np.argsort(-overlaps, kind='stable')[: NEAR['detection']].tolist():
            text = f'detection, {self.classes[found.labels[one]]} {found.scores[one]:.2f}'
            near.append(('detection', xyxy(found.xywh[one]).tolist(), text, overlaps[one], _mask_of(sample, one)))
        truth = self.truth[index]
        ious = iou_of(truth.xywh[row][None], truth.xywh)[0]
        ious[row] = 0
        for one in np.argsort(-ious, kind='stable')[: NEAR['object']].tolist():
            mask = _as_text(self.known.mask(position, one))
            near.append(('object', xyxy(truth.xywh[one]).tolist(), self._name(index, one), ious[one], mask))
        around = [
            Around(kind, [round(x, 1) for x in box], f'{text}, IoU {iou:.2f}', mask)
            for kind, box, text, iou, mask in near
            if iou > 0
        ]
        path = os.path.abspath(found.img_path) if found.img_path else ''
        return Card(truth.names[row], str(found.img_id), path, around, _as_text(self.known.mask(position, row)))


def _mask_of(sample: Any, place: int) -> dict[str, Any] | None:
    """COCO's RLE of the detection that is at ``place`` if the best score comes first; None without masks."""
    found = sample.pred_instances
    if 'masks' not in found:
        return None
    row = np.argsort(-found.scores.detach().float().cpu().numpy(), kind='stable')[place]
    return _as_text(unpack_mask(encode_mask(found.masks[row].cpu().numpy())))


def _as_text(rle: Any) -> dict[str, Any] | None:
    return None if rle is None else {'size': list(rle['size']), 'counts': rle['counts'].decode('ascii')}


def _batch_size(event: Event) -> int | None:
    """B; None for an event that is about all images."""
    return next((len(value) for value in event if isinstance(value, Tensor)), None)


def _in_image(boxes: Tensor, sample: Any) -> list[list[float]]:
    """Boxes of the network's input in pixels of the original image, not cut to it."""
    (height, width), (ori_height, ori_width) = sample.img_shape[:2], sample.ori_shape[:2]
    boxes = flip_boxes(boxes, width) if sample.get('flip', False) else boxes
    return scale_boxes(boxes, (ori_width / width, ori_height / height)).tolist()
