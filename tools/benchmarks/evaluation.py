"""COCO's evaluation of drawn detections, against pycocotools."""

import argparse
import contextlib
import copy
import io
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Report, alternate
from frdet.evaluation.backends import BACKENDS, CocoEval, Numbered

CLASSES, BOXES_PER_IMAGE, MAX_DETS = 80, 7.2, (1, 10, 100)  # COCO's val2017 has 36,781 boxes in 5,000 images


def draw(images: int, detections: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Annotations of ``images`` images, and ``detections`` of each: three near every object, the others anywhere."""
    rng = np.random.default_rng(0)
    objects = []
    by_image = defaultdict(list)
    for number in range(round(images * BOXES_PER_IMAGE)):
        side = np.exp(rng.uniform(np.log(6), np.log(300), 2))
        item = {
            'id': number + 1,
            'image_id': int(rng.integers(images)) + 1,
            'category_id': int(rng.integers(CLASSES)) + 1,
            'bbox': [*rng.uniform(0, 300, 2).tolist(), *side.tolist()],
            'area': float(side.prod() * 0.7),
            'iscrowd': int(rng.random() < 0.01),
        }
        objects.append(item)
        by_image[item['image_id']].append(item)
    found = []
    for image in range(1, images + 1):
        for place in range(detections):
            own = by_image[image]
            if place < 3 * len(own):
                target = own[place % len(own)]
                box = np.array(target['bbox']) + rng.normal(0, 0.08, 4) * np.tile(target['bbox'][2:], 2)
                label = target['category_id']
            else:
                box = np.concatenate([rng.uniform(0, 400, 2), rng.uniform(5, 200, 2)])
                label = int(rng.integers(CLASSES)) + 1
            item = {'image_id': image, 'category_id': label, 'bbox': box.tolist(), 'score': float(rng.random())}
            found.append({'id': len(found) + 1, 'area': float(box[2] * box[3]), 'iscrowd': 0, **item})
    return objects, found


def measure(args: argparse.Namespace) -> Report:
    """Seconds of each evaluator, and whether what they accumulate is the same to the last bit."""
    objects, found = draw(args.count, args.detections)
    results: dict[str, CocoEval] = {}

    def run(name: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            results[name] = BACKENDS[name](
                Numbered(
                    num_images=args.count,
                    num_classes=CLASSES,
                    annotations=copy.deepcopy(objects),  # the evaluators write into both
                    detections=copy.deepcopy(found),
                    tested=list(range(1, args.count + 1)),
                    max_dets=list(MAX_DETS),
                )
            )

    times = alternate({name: partial(run, name) for name in BACKENDS}, args.rounds, torch.device('cpu'), warmup=0)
    reference = results['pycocotools']
    report = Report(f'{args.count} images x {args.detections} detections against {len(objects)} boxes')
    for name, result in results.items():
        same = all(np.array_equal(getattr(result, key), getattr(reference, key)) for key in ('precision', 'recall'))
        report.rows.append(
            {
                'evaluator': name,
                's, median': times[name].median,
                'min-max': times[name].spread,
                'times as fast': times['pycocotools'].median / times[name].median,
                'the same figures': 'yes' if same else 'no',
            }
        )
    return report
