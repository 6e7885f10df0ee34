"""A work dir written by hand: two images, a detection of each kind, two validations, a resumed training."""

import json

import numpy as np
from mmengine.logging import MMLogger
from PIL import Image

from frdet.evaluation import CocoMetric
from frdet.insight import store
from tests.insight.scene import DETECTIONS, OBJECTS

CLASSES = ('cat', 'd<b>og')  # the second needs escaping
FIRST, SECOND = '20260101_000000/vis_data', '20260102_000000/vis_data'


def scalars(folder, records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'scalars.json').write_text(''.join(f'{json.dumps(record)}\n' for record in records))


def step(iteration, loss, epoch=1, **more):
    """A line of the log of training."""
    return dict(lr=0.01 * epoch, loss=loss, loss_cls=loss / 2, time=2.0, iter=iteration, epoch=epoch, **more)


def validation(epoch, ap):
    """A line of the log of a validation."""
    return {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': 2 * ap, 'coco/bbox_mAP_l': -1.0, 'time': 9.0, 'step': epoch}


def make_run(root, *, name='run', config='lr = 0.01\n', images=True, masks=False, more=()):
    """The folder of the run; the data lies beside it. ``more`` are further lines of the log."""
    work_dir = root / name
    coco = write_data(root / 'data', images, masks)
    # Two iterations an epoch. The first piece got to iteration 5, the second went on from the end of epoch 2.
    scalars(
        work_dir / FIRST,
        [step(1, 4.0), step(2, 3.0, memory=100), validation(1, 0.1), step(3, 2.0, 2), step(4, 2.5, 2),
         validation(2, 0.3), step(5, 9.0, 3)],
    )  # fmt: skip
    scalars(work_dir / SECOND, [step(5, 1.5, 3), step(6, 0.5, 3, memory=120), validation(3, 0.2), *more])
    labels = {'objects': [5, 1], 'images': [1, 1], 'small': [0, 0], 'medium': [0, 0], 'large': [5, 1]}
    labels |= {'num_images': 2, 'classes': CLASSES, 'sizes': [0] * 20, 'per_image': [1, 0, 0, 0, 0, 0, 1]}
    for folder in (FIRST, SECOND):
        facts = store.RunFacts(
            command='python tools/train.py made.py', versions=[['torch', '2.14.1']], iters_per_epoch=2, classes=CLASSES,
            ann_file=str(coco / 'truth.json'), image_dir=str(coco), img_ids=[1, 2], labels={'validation': labels},
        )  # fmt: skip
        store.save_facts(facts, work_dir / folder)
        (work_dir / folder / 'config.py').write_text(config)
    detections = [
        dict(image_id=1, category_id=label + 1, bbox=[x, y, 100, 100], score=score, **mask_of(x, y, masks))
        for label, x, y, score, _ in DETECTIONS
    ]
    (work_dir / SECOND / store.DETECTIONS).write_text(json.dumps(detections))
    store.save_evaluation(evaluation(coco / 'truth.json', detections), work_dir / SECOND)
    Image.new('RGB', (60, 40), 'green').save(work_dir / FIRST / store.BATCH.format(1))
    return work_dir


def mask_of(x, y, masks):
    """COCO's ``segmentation``: the left half of a box of 100 x 100 pixels."""
    return {'segmentation': [[x, y, x + 50, y, x + 50, y + 100, x, y + 100]]} if masks else {}


def write_data(folder, images, masks=False):
    folder.mkdir(exist_ok=True)
    content = {
        'images': [dict(id=k, file_name=f'{k}.png', width=1000, height=1000) for k in (1, 2)],
        'categories': [dict(id=k, name=name) for k, name in enumerate(CLASSES, start=1)],
        'annotations': [
            dict(image_id=1, category_id=label + 1, bbox=[x, y, 100, 100], iscrowd=0, **mask_of(x, y, masks))
            | dict(id=k, area=10000)
            for k, (label, x, y) in enumerate(OBJECTS, start=1)
        ],
    }
    (folder / 'truth.json').write_text(json.dumps(content))
    for k in (1, 2) if images else ():
        Image.new('RGB', (1000, 1000), 'grey').save(folder / f'{k}.png')
    return folder


def evaluation(ann_file, detections):
    MMLogger.get_instance('made')
    metric = CocoMetric(ann_file=str(ann_file), classwise=False)
    metric.dataset_meta = dict(classes=CLASSES)
    xywh = np.array([item['bbox'] for item in detections], dtype=float)
    scores, labels = (np.array([item[key] for item in detections]) for key in ('score', 'category_id'))
    none = (np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    metric.compute_metrics([(1, None, xywh, scores, labels - 1), (2, None, *none)])
    return metric.evaluation
