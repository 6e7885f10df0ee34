"""Values of masks are those of pycocotools, to the last bit, by both backends."""

import contextlib
import copy
import io
import json
import logging

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frdet.datasets import CocoDataset
from frdet.errors import ConfigError, DataError
from frdet.evaluation import CocoMetric
from frdet.structures import DetDataSample

NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@1', 'AR@10', 'AR@100', 'AR_s', 'AR_m', 'AR_l')
BACKENDS = ('pycocotools', 'hotcoco')
HEIGHT, WIDTH = 90, 130


def polygon(rng, centre, radius):
    angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
    length = radius * rng.uniform(0.5, 1.0, len(angle))
    x, y = centre[0] + length * np.cos(angle), centre[1] + length * np.sin(angle)
    return np.stack([x, y], axis=1).round(2).ravel().tolist()


def drawn(seed, num_images=6, num_classes=3):
    """A COCO file with polygons, RLE of both kinds, crowds and ignored areas; and detected masks with tied scores."""
    rng = np.random.default_rng(seed)
    images = [dict(id=i + 5, file_name=f'{i}.jpg', height=HEIGHT, width=WIDTH) for i in range(num_images)]
    annotations, samples = [], []
    for image in images:
        masks, labels = [], []
        for _ in range(int(rng.integers(1, 6))):
            centre, radius = rng.uniform(0, [WIDTH, HEIGHT]), float(np.exp(rng.uniform(np.log(5), np.log(120))))
            parts = [polygon(rng, centre + k * radius, radius) for k in range(1 + int(rng.random() < 0.3))]
            rle = coco_mask.merge(coco_mask.frPyObjects(parts, HEIGHT, WIDTH))
            pixels, is_crowd = coco_mask.decode(rle), int(rng.random() < 0.2)
            if not pixels.any():
                continue
            changes = np.flatnonzero(np.diff(pixels.T.ravel())) + 1
            runs = np.diff(np.r_[0, changes, pixels.size]).tolist()
            counts = [0, *runs] if pixels[0, 0] else runs
            kinds = [parts, {'size': [HEIGHT, WIDTH], 'counts': counts}, {**rle, 'counts': rle['counts'].decode()}]
            label = int(rng.integers(num_classes))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['id'],
                    category_id=label + 1,
                    segmentation=kinds[1] if is_crowd else kinds[int(rng.integers(3))],
                    bbox=coco_mask.toBbox(rle).tolist(),
                    area=float(pixels.sum()) * 0.9,  # the file's area counts, not that of the pixels
                    iscrowd=is_crowd,
                )
            )
            for _ in range(int(rng.integers(0, 4))):
                moved = np.roll(pixels, rng.integers(-4, 5, 2), (0, 1)) & (rng.random(pixels.shape) < 0.9)
                masks.append(moved > 0)
                labels.append(label if rng.random() < 0.8 else int(rng.integers(num_classes)))
        sample = DetDataSample(metainfo=dict(img_id=image['id']))
        found = torch.from_numpy(np.array(masks).reshape(-1, HEIGHT, WIDTH))
        boxes = coco_mask.toBbox([encoded(mask) for mask in found.numpy()]) if len(found) else np.zeros((0, 4))
        boxes = torch.from_numpy(boxes).float()
        sample.pred_instances = InstanceData(
            bboxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
            scores=torch.from_numpy(rng.integers(1, 9, len(found)) / 8).float(),
            labels=torch.tensor(labels, dtype=torch.int64),
            masks=found,
        )
        samples.append(sample.to_dict())
    categories = [dict(id=k + 1, name=f'c{k}') for k in range(num_classes)]
    return dict(images=images, annotations=annotations, categories=categories), samples


def encoded(mask):
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def directly(ann_file, samples, kind='segm'):
    """pycocotools, given masks without boxes: with boxes, it would take their areas for the size of a detection."""
    records = []
    for sample in samples:
        found = sample['pred_instances']
        for mask, box, score, label in zip(
            *(found[key] for key in ('masks', 'bboxes', 'scores', 'labels')), strict=True
        ):
            x1, y1, x2, y2 = box.double().tolist()
            form = {'segmentation': encoded(mask.numpy())} if kind == 'segm' else {'bbox': [x1, y1, x2 - x1, y2 - y1]}
            head = dict(image_id=sample['img_id'], category_id=int(label) + 1, score=float(score))
            records.append({**head, **form})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ann_file))
        evaluator = COCOeval(truth, truth.loadRes(records), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return {f'coco/{kind}_{name}': value for name, value in zip(NAMES, evaluator.stats.tolist(), strict=True)}


def evaluate(ann_file, samples, **kwargs):
    metric = CocoMetric(ann_file=str(ann_file), **{'metric': ('bbox', 'segm'), **kwargs})
    metric.dataset_meta = dict(classes=['c0', 'c1', 'c2'])
    metric.process({}, samples)
    return metric.evaluate(len(samples)), metric


@pytest.fixture
def ann_file(tmp_path):
    def write(content):
        (tmp_path / 'truth.json').write_text(json.dumps(content))
        return tmp_path / 'truth.json'

    return write


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('seed', range(6))
def test_equal_to_pycocotools(ann_file, seed, backend):
    content, samples = drawn(seed)
    path = ann_file(content)
    values, metric = evaluate(path, samples, backend=backend)
    assert values == {**directly(path, samples, 'bbox'), **directly(path, samples)}
    assert 0 < values['coco/segm_mAP'] < 1 and values['coco/segm_mAP'] != values['coco/bbox_mAP']
    assert list(metric.evaluations) == ['bbox', 'segm'] and metric.evaluation is metric.evaluations['bbox']


@pytest.mark.parametrize('backend', BACKENDS)
def test_more_than_255_detections(ann_file, backend):
    """A count that pycocotools cannot take at once with NumPy 2."""
    content, samples = drawn(6, num_images=90)
    assert sum(len(sample['pred_instances']['labels']) for sample in samples) > 255
    path = ann_file(content)
    values, _ = evaluate(path, samples, backend=backend, metric='segm')
    assert values == directly(path, samples)


@pytest.mark.parametrize('backend', BACKENDS)
def test_photographs(coco_root, backend):
    """The annotated masks of photographs, shifted and dropped at random, are detected."""
    path = coco_root.root / coco_root.val_ann
    truth, rng, samples = COCO(path), np.random.default_rng(0), []
    for img_id in sorted(truth.imgs)[:25]:
        items = [one for one in truth.imgToAnns[img_id] if rng.random() < 0.8 and not one['iscrowd']]
        masks = [np.roll(truth.annToMask(one), rng.integers(-5, 6, 2), (0, 1)) for one in items]
        order = sorted(truth.cats)
        sample = DetDataSample(metainfo=dict(img_id=img_id))
        boxes = torch.tensor([one['bbox'] for one in items], dtype=torch.float32).reshape(-1, 4)
        size = truth.imgs[img_id]['height'], truth.imgs[img_id]['width']
        sample.pred_instances = InstanceData(
            bboxes=torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1),
            scores=torch.rand(len(items), generator=torch.Generator().manual_seed(img_id % 1000)),
            labels=torch.tensor([order.index(one['category_id']) for one in items], dtype=torch.int64),
            masks=torch.from_numpy(np.array(masks).reshape(-1, *size) > 0),
        )
        samples.append(sample.to_dict())
    metric = CocoMetric(ann_file=str(path), metric='segm', backend=backend, classwise=False)
    metric.dataset_meta = dict(classes=[truth.cats[k]['name'] for k in order])
    metric.process({}, samples)
    values = metric.evaluate(len(samples))
    records = [
        dict(
            image_id=one['img_id'],
            category_id=order[int(label)],
            score=float(score),
            segmentation=encoded(mask.numpy()),
        )
        for one in samples
        for mask, score, label in zip(*(one['pred_instances'][k] for k in ('masks', 'scores', 'labels')), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(truth, truth.loadRes(records), 'segm')
        evaluator.params.imgIds = sorted(truth.imgs)[:25]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert [values[f'coco/segm_{name}'] for name in NAMES] == evaluator.stats.tolist()
    assert 0.1 < values['coco/segm_mAP'] < 1


@pytest.mark.parametrize('backend', BACKENDS)
def test_no_detection(ann_file, backend):
    content, samples = drawn(0)
    for sample in samples:
        sample['pred_instances'] = {key: value[:0] for key, value in sample['pred_instances'].items()}
    values, _ = evaluate(ann_file(content), samples, backend=backend)
    assert values['coco/segm_mAP'] == 0 and values['coco/segm_AR@100'] == 0


def test_truth_of_the_data_set(ann_file, tmp_path):
    """With masks it is used; read without them, it is refused before the first image."""
    content, samples = drawn(1)
    path = ann_file(content)
    data = dict(ann_file=str(path), data_prefix=dict(img=str(tmp_path)), test_mode=True)
    metric = CocoMetric(metric='segm')
    metric.use_dataset(CocoDataset(**data, with_masks=True))
    metric.dataset_meta = dict(classes=['c0', 'c1', 'c2'])
    metric.process({}, samples)
    assert metric.evaluate(len(samples)) == directly(path, samples)
    with pytest.raises(DataError, match=r'was read without masks, .* set with_masks=True .*, or .* metric=.bbox'):
        CocoMetric(metric='segm').use_dataset(CocoDataset(**data))


def test_truth_without_a_mask(ann_file):
    content, samples = drawn(1)
    del content['annotations'][2]['segmentation']
    path = ann_file(content)
    with pytest.raises(DataError, match='has objects without a mask, the first in image'):
        evaluate(path, samples)
    assert evaluate(path, samples, metric='bbox')[0] == directly(path, samples, 'bbox')


def test_a_model_without_masks(ann_file):
    content, samples = drawn(1)
    del samples[0]['pred_instances']['masks']
    with pytest.raises(ConfigError, match=r'image 5 has no masks, and CocoMetric has metric segm: give .* mask head'):
        evaluate(ann_file(content), samples)


@pytest.mark.parametrize('wrong', ['mask', (), ('bbox', 'box'), ('segm', 'segm')])
def test_other_kinds_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected 'bbox', 'segm' or both"):
        CocoMetric(metric=wrong)


def test_detections_are_kept_small(ann_file):
    """As RLE: pixels of 10 detections would be 117 kB in each image."""
    content, samples = drawn(2)
    metric = CocoMetric(ann_file=str(ann_file(content)), metric='segm')
    metric.process({}, samples)
    assert all(isinstance(mask, bytes) for one in metric.results for mask in one.masks)
    assert sum(len(mask) for one in metric.results for mask in one.masks) < 0.2 * sum(
        one['pred_instances']['masks'].numel() for one in samples
    )


def test_tables_in_the_log(ann_file, caplog):
    content, samples = drawn(3)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            evaluate(ann_file(content), samples)
    finally:
        logger.removeHandler(caplog.handler)
    texts = [record.getMessage() for record in caplog.records]
    (values,) = [text for text in texts if '| metric' in text]
    assert 'segm_mAP_50' in values and 'bbox_mAP_50' in values
    assert [('mask AP' in text) for text in texts if '| class' in text] == [False, True]


def test_detections_of_an_unused_label_do_not_count(ann_file):
    """Label 1 is no class. Every second detection is of it, and the masks of the others stay with their boxes."""
    content, samples = drawn(5)
    kept = copy.deepcopy(samples)
    for sample, half in zip(samples, kept, strict=True):
        labels = sample['pred_instances']['labels']
        labels += labels > 0
        labels[::2] = 1
        half['pred_instances'] = {key: value[1::2] for key, value in half['pred_instances'].items()}
    path = ann_file(content)
    metric = CocoMetric(ann_file=str(path), metric='segm')
    metric.dataset_meta = dict(classes=['c0', 'N/A', 'c1', 'c2'])
    metric.process({}, samples)
    assert metric.evaluate(len(samples)) == directly(path, kept)
