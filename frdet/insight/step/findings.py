"""Warnings about problems in a recorded step."""

from collections.abc import Iterator
from statistics import median

import torch
from torch import Tensor

from frdet.insight.step.record import DATA, Record
from frdet.models.layers import has_untouched_frozen_norm
from frdet.structures import box_iou

NOISY = 20.0  # times the median spread of the layers before it in its part
DEAD_SHARE = 0.5
LARGE_UPDATE = 1.0  # of the weights' own norm


def find_warnings(record: Record) -> list[str]:
    """Sentences, the most serious kinds first; an empty list if nothing was found."""
    checks = (_non_finite, _weights, _truth, _unmatched, _samples, _learning_rate, _layers, _stages)
    return [warning for check in checks for warning in check(record)]


def best_iou(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """(G,) the best IoU of each ground truth (G, 4) with the boxes (N, 4)."""
    found = [box_iou(gt_boxes, some).amax(dim=1) for some in boxes.split(100_000) if len(some)]
    return torch.stack([torch.zeros(len(gt_boxes)), *found]).amax(dim=0)


def _non_finite(record: Record) -> Iterator[str]:
    if bad := [loss.name for loss in record.losses if not abs(loss.value) < float('inf')]:
        yield f'Not finite: {", ".join(bad)}. The step destroys the weights; a lower rate or better weights may help.'
    if first := next((name for name, stats in record.layers.items() if stats.non_finite), None):
        yield f'Activations are not finite from layer {first} on ({record.layers[first].non_finite:,} values).'
    if stages := [name for name, stage in record.stages.items() if stage.non_finite]:
        yield f'Gradients are not finite in {", ".join(stages)}.'


def _weights(record: Record) -> Iterator[str]:
    if has_untouched_frozen_norm(record.prepared.model):
        yield (
            'FrozenBN is untouched: no statistics were loaded into it, activations grow from block to block and '
            'training diverges. Give pretrained weights or a checkpoint, or use GN or BN.'
        )
    if record.prepared.weights == 'random':
        yield 'The weights are random: give --checkpoint to see a trained model. Scores and refinements mean little.'
    elif record.prepared.weights.startswith('pretrained'):
        yield f'No --checkpoint: weights are {record.prepared.weights}. Scores and refinements mean little.'


def _truth(record: Record) -> Iterator[str]:
    for image, sample in enumerate(() if DATA in record.absent else record.samples):
        if len(sample.gt_instances) == 0:
            yield f'No boxes in {record.image_name(image)}: everything in it is trained on as background.'


def _unmatched(record: Record) -> Iterator[str]:
    for image, matching in enumerate(record.anchors):
        boxes = record.samples[image].gt_instances.bboxes.cpu()
        answered = matching.gt_index[matching.label == 1].bincount(minlength=max(len(boxes), 1))
        sides = (matching.boxes[:, 2:] - matching.boxes[:, :2]).prod(dim=1).sqrt()
        for index, iou in enumerate(best_iou(matching.boxes, boxes).tolist()):
            if answered[index]:
                continue
            side = float((boxes[index, 2:] - boxes[index, :2]).clamp(min=0).prod().sqrt())
            reason = 'its shape or position fits none'
            if side < float(sides.min()):
                reason = f'too small for the smallest anchors, {float(sides.min()):.0f} pixels'
            elif side > float(sides.max()):
                reason = f'too large for the largest anchors, {float(sides.max()):.0f} pixels'
            name = record.describe(image, index)
            yield f'No anchor matches {name} of {record.image_name(image)}: {reason} (best IoU {iou:.2f}).'


def _samples(record: Record) -> Iterator[str]:
    for image, rois in enumerate(record.rois):
        if len(record.samples[image].gt_instances) and not rois.positive.any():
            yield f'All {len(rois.boxes)} sampled RoIs of {record.image_name(image)} are background.'
    for image, matching in enumerate(record.matched):
        positive = matching.label == 1
        if positive.any() and matching.is_truth[positive].all() and (~matching.is_truth & (matching.label >= 0)).any():
            yield (
                f'No proposal fits an object of {record.image_name(image)}: the only positive RoIs are the ground '
                'truth itself, which joins the proposals.'
            )
    for image, selection in enumerate(record.selections):
        if not selection.kept.any():
            yield f'No proposal of {record.image_name(image)} survived: the second stage sees none of the first.'


def _learning_rate(record: Record) -> Iterator[str]:
    rule = record.prepared.cfg.get('auto_scale_lr') or {}
    base = rule.get('base_batch_size')
    images = record.prepared.batch_size * record.prepared.optim_wrapper._accumulative_counts
    if base and not rule.get('enable') and images != base:
        yield (
            f'The learning rate does not fit this batch: {record.lr:g} is for {base} images in a step, this config '
            f'takes {images} in one process. Set auto_scale_lr.enable=True, or lr={record.lr * images / base:g}.'
        )


def _layers(record: Record) -> Iterator[str]:
    spreads: dict[str, list[float]] = {}
    for name, stats in record.layers.items():
        dead = stats.dead(name)
        if dead == stats.shape[1]:
            yield f'A dead ReLU layer: no value of {name} is above 0 in this step, and no gradient passes it.'
        elif dead is not None and dead > DEAD_SHARE * stats.shape[1]:
            yield f'{dead} of {stats.shape[1]} channels of {name} are never above 0 in this step.'
        earlier = spreads.setdefault(name.split('.')[0], [])
        if earlier and stats.std > NOISY * median(earlier) > 0:
            yield (
                f'Activations of {name} are noisy: their spread {stats.std:.3g} is {stats.std / median(earlier):.0f} '
                f'times the usual spread of the layers before it.'
            )
        earlier.append(stats.std)


def _stages(record: Record) -> Iterator[str]:
    for name, stage in record.stages.items():
        if stage.trained and stage.gradient == 0:
            yield f'No gradient reaches {name}, although it is trained.'
    large = {n: s.ratio for n, s in record.stages.items() if s.ratio is not None and s.ratio > LARGE_UPDATE}
    if large:
        most = ', '.join(f'{name} by {ratio:.1f}' for name, ratio in sorted(large.items(), key=lambda x: -x[1])[:3])
        yield (
            f'At the full learning rate {record.lr:g} one step changes {len(large)} stages by more than their own size '
            f'({most} times): keep the warm-up, or lower the rate.'
        )
