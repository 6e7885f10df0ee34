"""COCO's evaluation of random detections, compared with pycocotools."""

import argparse
import contextlib
import io
from functools import partial

import numpy as np
import torch

from benchmarks.timing import Report, alternate
from frdet.evaluation.backends import BACKENDS, CocoEval, Columns, Numbered

CLASSES, BOXES_PER_IMAGE, MAX_DETS = 80, 7.2, (1, 10, 100)  # COCO's val2017 has 36,781 boxes in 5,000 images


def draw(images: int, detections: int) -> Numbered:
    """Annotations of ``images`` images, and ``detections`` in each: three near every object, the rest anywhere."""
    rng = np.random.default_rng(0)
    count = round(images * BOXES_PER_IMAGE)
    size = np.exp(rng.uniform(np.log(6), np.log(300), (count, 2)))
    boxes = np.concatenate([rng.uniform(0, 300, (count, 2)), size], axis=1)
    image = np.sort(rng.integers(1, images + 1, count))
    category = rng.integers(1, CLASSES + 1, count)
    truth = Columns(image, category, boxes, size.prod(axis=1) * 0.7, rng.random(count) < 0.01)

    number = np.repeat(np.arange(1, images + 1), detections)
    found = np.concatenate([rng.uniform(0, 400, (len(number), 2)), rng.uniform(5, 200, (len(number), 2))], axis=1)
    label = rng.integers(1, CLASSES + 1, len(number))
    first, last = (np.searchsorted(image, number, side=side) for side in ('left', 'right'))
    place = np.tile(np.arange(detections), images)
    near = np.flatnonzero(place < 3 * (last - first))
    target = (first + place % np.maximum(last - first, 1))[near]
    found[near] = boxes[target] + rng.normal(0, 0.08, (len(near), 4)) * np.tile(size[target], 2)
    label[near] = category[target]
    table = np.column_stack([number, found, rng.random(len(number)), label])
    return Numbered(images, CLASSES, truth, table, list(range(1, images + 1)), list(MAX_DETS))


def measure(args: argparse.Namespace) -> Report:
    """Seconds of each evaluator from arrays to arrays, and whether the results are the same to the last bit."""
    task = draw(args.count, args.detections)
    results: dict[str, CocoEval] = {}

    def run(name: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            results[name] = BACKENDS[name](task)

    times = alternate({name: partial(run, name) for name in BACKENDS}, args.rounds, torch.device('cpu'), warmup=0)
    reference = results['pycocotools']
    report = Report(f'{args.count} images x {args.detections} detections against {len(task.truth.image)} boxes')
    for name, result in results.items():
        same = all(np.array_equal(getattr(result, key), getattr(reference, key)) for key in ('precision', 'recall'))
        median, spread, factor = times[name].median, times[name].spread, times['pycocotools'].median
        row = {'evaluator': name, 's, median': median, 'min-max': spread, 'times as fast': factor / median}
        report.add({**row, 'the same arrays': 'yes' if same else 'no'})
    return report
