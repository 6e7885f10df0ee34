"""Studies whose runs have detections on drawn images, so that metric values, classes and errors belong together."""

import json

import numpy as np
from mmengine.logging import MMLogger

from frdet.apis.ablation.study import Study
from frdet.engine.hooks.work_folder import FINISHED
from frdet.evaluation import CocoMetric
from frdet.insight import store
from tests.insight.report.made import FIRST, scalars

CLASSES = ('cat', 'dog')
SIDES = (20, 60, 120)  # small, medium and large objects


def make_study(root, variants=('base', 'giou'), seeds=(0, 1), **options):
    """The folder of a study in which no run has begun."""
    study = Study(root / 'study', tuple(variants), tuple(seeds), **{'bootstrap': 40, **options})
    for variant in variants:
        study.folder(variant).mkdir(parents=True)
        trial = {'params': 1000, 'memory': 700.0, 'input_size': [64, 64]}
        (study.folder(variant) / 'trial.json').write_text(json.dumps(trial))
    study.save()
    return study


def write_truth(root, images=10):
    """The path of the annotations: two or three objects of all sizes in each image, a crowd and an ignored one."""
    random = np.random.default_rng(0)
    objects = [
        dict(
            image_id=f'i{image}', category_id=int(random.integers(1, 3)), bbox=[*random.uniform(0, 300, 2), side, side]
        )
        for image in range(images)
        for side in SIDES[image % 2 :]
    ]
    more = [{}] * (len(objects) - 2) + [dict(iscrowd=1), dict(ignore=1)]
    content = {
        'images': [dict(id=f'i{image}', file_name=f'{image}.png', width=500, height=500) for image in range(images)],
        'categories': [dict(id=k, name=name) for k, name in enumerate(CLASSES, start=1)],
        'annotations': [
            dict(id=k, area=one['bbox'][2] ** 2, **{'iscrowd': 0, **extra}, **one)
            for k, (one, extra) in enumerate(zip(objects, more, strict=True), start=1)
        ],
    }
    path = root / 'truth.json'
    path.write_text(json.dumps(content))
    return path


def detect(truth, seed, jitter):
    """Detections near the objects; runs with the same seed see the same noise."""
    random = np.random.default_rng(seed)
    found = []
    for one in json.loads(truth.read_text())['annotations']:
        x, y, side, _ = one['bbox']
        dx, dy, score, is_seen = random.normal(0, 1, 2).tolist() + random.random(2).tolist()
        if is_seen < 0.9:
            box = [x + jitter * side * dx, y + jitter * side * dy, side, side]
            found.append(dict(image_id=one['image_id'], category_id=one['category_id'], bbox=box, score=score))
    return found


def finish(
    study, variant, seed, truth, *, jitter=0.1, times=(0.5, 0.25, 0.25), memory=(), values=None, max_dets=(1, 10, 100)
):
    """Write a finished run. It logs ``values`` if given, else what COCO's evaluation gives.

    Returns:
        The metric values of its last validation.
    """
    job = study.job(variant, seed)
    folder = job.work_dir / FIRST
    detections = detect(truth, seed, jitter)
    metric = evaluate(truth, detections, max_dets)
    logged = values or {f'coco/{name}': value for name, value in metric.results.items()}
    steps = [dict(iter=k, epoch=k, lr=0.1, loss=1.0, time=time) for k, time in enumerate(times, start=1)]
    for record, value in zip(steps, memory, strict=False):
        record['memory'] = value
    scalars(folder, [*steps, {'step': 2, **dict.fromkeys(logged, 0.9)}, {'step': 3, **logged}])
    images = [image['id'] for image in json.loads(truth.read_text())['images']]
    store.save_facts(store.RunFacts('', [], 1, list(CLASSES), str(truth), None, images, {}), folder)
    (folder / 'config.py').write_text(f"val_evaluator = dict(type='CocoMetric', max_dets={max_dets})\n")
    (folder / store.DETECTIONS).write_text(json.dumps(detections))
    store.save_evaluation(metric.evaluation, folder)
    (job.work_dir / FINISHED).write_text('{}')
    return logged


def evaluate(truth, detections, max_dets=(1, 10, 100)):
    MMLogger.get_instance('made')
    metric = CocoMetric(ann_file=str(truth), classwise=False, max_dets=max_dets)
    metric.dataset_meta = dict(classes=CLASSES)
    by_image = {image['id']: [] for image in json.loads(truth.read_text())['images']}
    for one in detections:
        by_image[one['image_id']].append(one)
    metric.results = metric.compute_metrics([
        (image, None, np.array([one['bbox'] for one in found], float).reshape(-1, 4),
         np.array([one['score'] for one in found]), np.array([one['category_id'] - 1 for one in found], int))
        for image, found in by_image.items()
    ])  # fmt: skip
    return metric
