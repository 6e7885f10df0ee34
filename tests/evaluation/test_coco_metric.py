"""CocoMetric's figures are pycocotools', to the last digit."""

import contextlib
import copy
import io
import json
import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frdet.errors import ConfigError, DataError
from frdet.evaluation import CocoMetric
from frdet.evaluation.coco_metric import is_defined
from frdet.structures import DetDataSample
from tests.datasets.test_coco_reading import layouts, nearly_right
from tests.ops.test_any_boxes import any_boxes, coordinates

NAMES = (
    'bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l',
    'bbox_AR@1', 'bbox_AR@10', 'bbox_AR@100', 'bbox_AR_s', 'bbox_AR_m', 'bbox_AR_l',
)  # fmt: skip
BACKENDS = ('pycocotools', 'hotcoco')


def sample(img_id, boxes, scores, labels):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    data = DetDataSample(metainfo=dict(img_id=img_id))
    data.pred_instances = InstanceData(
        bboxes=boxes, scores=torch.tensor(scores, dtype=torch.float32), labels=torch.tensor(labels, dtype=torch.int64)
    )
    return data.to_dict()


def evaluate(ann_file, samples, classes, **kwargs):
    metric = CocoMetric(ann_file=str(ann_file), **kwargs)
    metric.dataset_meta = dict(classes=classes)
    for start in range(0, len(samples), 3):
        metric.process({}, samples[start : start + 3])
    return metric.evaluate(len(samples))


def directly(ann_file, results_file, img_ids=None, cat_ids=None):
    """pycocotools as its documentation shows it, on the files."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ann_file))
        evaluator = COCOeval(truth, truth.loadRes(str(results_file)), 'bbox')
        evaluator.params.imgIds = img_ids or evaluator.params.imgIds
        evaluator.params.catIds = cat_ids or evaluator.params.catIds
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return dict(zip(NAMES, evaluator.stats.tolist(), strict=True))


def assert_equal(figures, expected, backend):
    expected = {f'coco/{name}': value for name, value in expected.items()}
    assert figures == expected, backend


def drawn(rng, num_images=12, num_classes=4, extra=0):
    """Annotations of every kind, crowds and all sizes among them, and detections around them with tied scores."""
    images = [dict(id=int(i), file_name=f'{i}.jpg', height=400, width=500) for i in rng.permutation(500)[:num_images]]
    ids = np.sort(rng.permutation(90)[:num_classes] + 1)
    annotations, samples = [], []
    for image in images:
        boxes, labels = [], []
        for _ in range(int(rng.integers(0, 7))):
            side = np.exp(rng.uniform(np.log(4), np.log(300), 2))
            x, y = rng.uniform(0, 200, 2)
            label = int(rng.integers(num_classes))
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=image['id'], category_id=int(ids[label]),
                    bbox=[round(float(v), 2) for v in (x, y, *side)], area=float(side.prod() * rng.uniform(0.4, 1)),
                    iscrowd=int(rng.random() < 0.15),
                )
            )  # fmt: skip
            for _ in range(int(rng.integers(0, 5))):
                shift = rng.normal(0, 0.1, 4) * np.tile(side, 2)
                boxes.append(np.array([x, y, x + side[0], y + side[1]]) + shift)
                labels.append(label if rng.random() < 0.8 else int(rng.integers(num_classes)))
        for _ in range(extra):
            corner = rng.uniform(0, 300, 2)
            boxes.append(np.concatenate([corner, corner + rng.uniform(1, 150, 2)]))
            labels.append(0)
        scores = rng.integers(1, 20, len(boxes)) / 20  # many ties
        samples.append(sample(image['id'], np.array(boxes), scores, labels))
    categories = [dict(id=int(i), name=f'class {i}') for i in rng.permutation(ids)]
    classes = tuple(f'class {i}' for i in ids)
    return dict(images=images, annotations=annotations, categories=categories), samples, classes


def drawn_set(seed):
    return drawn(np.random.default_rng(seed), extra=(150, 3, 0)[seed % 3], num_classes=(4, 12)[seed % 2])


def cases(truth, samples):
    """What is special in a drawn set."""
    objects = {a['image_id'] for a in truth['annotations']}
    found = [s['pred_instances'] for s in samples]
    return {
        'crowd': any(a['iscrowd'] for a in truth['annotations']),
        'image without object': any(s['img_id'] not in objects for s in samples),
        'image without detection': any(len(f['scores']) == 0 for f in found),
        'ties': any(len(f['scores'].unique()) < len(f['scores']) for f in found),
        'over 100 of a class': any(f['labels'].bincount(minlength=1).max() > 100 for f in found),
        'category without object': len({a['category_id'] for a in truth['annotations']}) < len(truth['categories']),
        'category only of crowds': bool(
            {a['category_id'] for a in truth['annotations'] if a['iscrowd']}
            - {a['category_id'] for a in truth['annotations'] if not a['iscrowd']}
        ),
    }


def test_every_case_is_drawn():
    drawn_cases = [cases(*drawn_set(seed)[:2]) for seed in range(24)]
    assert all(sum(c[name] for c in drawn_cases) >= 2 for name in drawn_cases[0])


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('seed', range(24))
def test_drawn_results(tmp_path, backend, seed):
    truth, samples, classes = drawn_set(seed)
    ann_file, out = tmp_path / 'truth.json', tmp_path / 'results.json'
    ann_file.write_text(json.dumps(truth))
    figures = evaluate(ann_file, samples, classes, outfile=str(out), backend=backend)
    assert_equal(figures, directly(ann_file, out), backend)
    assert 0 < figures['coco/bbox_mAP'] < 1


@pytest.mark.parametrize('keys', [(), ('bboxes', 'labels')])
def test_results_without_detections(tmp_path, keys):
    """A model that does not fit is an error in words."""
    truth, samples, classes = drawn_set(0)
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    one = {**samples[0], 'pred_instances': {key: samples[0]['pred_instances'][key] for key in keys}}
    missing = 'scores' if keys else 'bboxes and no scores and no labels'
    with pytest.raises(ConfigError, match=f'for image {one["img_id"]} has no {missing}: expected pred_instances with'):
        evaluate(tmp_path / 'truth.json', [one if keys else dict(img_id=one['img_id'])], classes)


@pytest.mark.parametrize('backend', BACKENDS)
def test_real_annotations(coco_root, tmp_path, backend):
    """Every annotated box moved a little, and wrong ones; all images of the file."""
    ann_file = coco_root.root / coco_root.val_ann
    content = json.loads(ann_file.read_text())
    label_of = {c['id']: coco_root.classes.index(c['name']) for c in content['categories']}
    rng = np.random.default_rng(0)
    samples = []
    for image in content['images']:
        rows = [a for a in content['annotations'] if a['image_id'] == image['id']]
        xywh = np.array([a['bbox'] for a in rows]).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1) + rng.normal(0, 4, xywh.shape)
        labels = [label_of[a['category_id']] if rng.random() < 0.9 else 0 for a in rows]
        samples.append(sample(image['id'], boxes, rng.random(len(rows)).round(1), labels))
    out = tmp_path / 'results.json'
    figures = evaluate(ann_file, samples, coco_root.classes, outfile=str(out), backend=backend)
    assert_equal(figures, directly(ann_file, out), backend)
    assert figures['coco/bbox_mAP_50'] > 0.3


@pytest.mark.parametrize('backend', BACKENDS)
def test_only_tested_images_and_chosen_classes_count(tmp_path, backend):
    truth, samples, classes = drawn(np.random.default_rng(3), num_images=20)
    ann_file, out = tmp_path / 'truth.json', tmp_path / 'results.json'
    ann_file.write_text(json.dumps(truth))
    # Two classes of four, the last one first: labels 0 and 1 are other categories than in the file's order.
    chosen = (classes[3], classes[1])
    kept = samples[:12]
    for s in kept:
        s['pred_instances']['labels'] %= 2
    figures = evaluate(ann_file, kept, chosen, outfile=str(out), backend=backend)
    ids = [int(name.split()[1]) for name in chosen]
    assert {r['category_id'] for r in json.loads(out.read_text())} == set(ids)
    expected = directly(ann_file, out, [s['img_id'] for s in kept], ids)
    assert_equal(figures, expected, backend)


@pytest.mark.parametrize('backend', BACKENDS)
def test_labels_in_another_order_than_the_ids(tmp_path, backend):
    """COCO averages in the order of the ids, whatever the labels: another order rounds otherwise."""
    truth, samples, classes = drawn_set(1)
    ann_file, out = tmp_path / 'truth.json', tmp_path / 'results.json'
    ann_file.write_text(json.dumps(truth))
    for s in samples:
        s['pred_instances']['labels'] = len(classes) - 1 - s['pred_instances']['labels']
    figures = evaluate(ann_file, samples, classes[::-1], outfile=str(out), backend=backend)
    assert_equal(figures, directly(ann_file, out), backend)


@pytest.mark.parametrize('backend', BACKENDS)
def test_unused_labels_count_for_nothing(tmp_path, backend):
    """The same detections under labels with gaps, and some of labels that no category has."""
    truth, samples, classes = drawn(np.random.default_rng(4))
    ann_file = tmp_path / 'truth.json'
    ann_file.write_text(json.dumps(truth))
    expected = evaluate(ann_file, copy.deepcopy(samples), classes, backend=backend)
    with_gaps = ('N/A', classes[0], classes[1], 'N/A', 'N/A', classes[2], classes[3])
    place = torch.tensor([1, 2, 5, 6])
    for s in samples:
        found = s['pred_instances']
        labels = torch.cat([place[found['labels']], torch.tensor([0, 4])])
        boxes = torch.cat([found['bboxes'], torch.tensor([[5.0, 5, 50, 50]] * 2)])
        s['pred_instances'] = InstanceData(
            bboxes=boxes, scores=torch.cat([found['scores'], torch.ones(2)]), labels=labels
        )
    assert evaluate(ann_file, samples, with_gaps, backend=backend) == expected


def by_hand(tmp_path, annotations, **content):
    ann_file = tmp_path / 'truth.json'
    images = [dict(id=i, file_name=f'{i}.jpg', height=100, width=100) for i in (1, 2)]
    categories = [dict(id=7, name='cat'), dict(id=9, name='dog')]
    ann_file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories, **content)))
    return ann_file


@pytest.mark.parametrize('backend', BACKENDS)
def test_figures_by_hand(tmp_path, backend):
    """One cat of 40x40, found at IoU 0.8 (40 x 32 of it): right at the 7 thresholds 0.50 to 0.80, wrong at three."""
    truth = [dict(id=1, image_id=1, category_id=7, bbox=[10, 10, 40, 40], area=1600, iscrowd=0)]
    ann_file = by_hand(tmp_path, truth)
    found = [sample(1, [[10, 10, 50, 42]], [0.9], [0]), sample(2, [], [], [])]
    figures = evaluate(ann_file, found, ('cat', 'dog'), backend=backend)
    expected = dict(zip(NAMES, (0.7, 1, 1, -1, 0.7, -1, 0.7, 0.7, 0.7, -1, 0.7, -1), strict=True))
    assert figures == pytest.approx({f'coco/{k}': v for k, v in expected.items()})


@pytest.mark.parametrize('backend', BACKENDS)
def test_no_detection_and_no_object(tmp_path, backend):
    truth = [dict(id=1, image_id=1, category_id=7, bbox=[10, 10, 40, 40], area=1600, iscrowd=0)]
    empty = [sample(i, [], [], []) for i in (1, 2)]
    out = tmp_path / 'none.json'
    figures = evaluate(by_hand(tmp_path, truth), empty, ('cat', 'dog'), backend=backend, outfile=str(out))
    assert figures['coco/bbox_mAP'] == figures['coco/bbox_AR@100'] == figures['coco/bbox_mAP_m'] == 0
    assert figures['coco/bbox_mAP_s'] == -1
    assert json.loads(out.read_text()) == []
    crowd = [{**truth[0], 'iscrowd': 1}]
    figures = evaluate(by_hand(tmp_path, crowd), empty, ('cat', 'dog'), backend=backend)
    assert len(figures) == 12 and set(figures.values()) == {-1.0}
    assert evaluate(by_hand(tmp_path, []), empty, ('cat', 'dog'), backend=backend) == {}


@pytest.mark.parametrize('backend', BACKENDS)
def test_annotations_with_the_least(tmp_path, backend):
    """No info, ids, areas or crowd flags: an area is the box's."""
    ann_file = by_hand(tmp_path, [dict(image_id=1, category_id=7, bbox=[10, 10, 40, 40])])
    figures = evaluate(ann_file, [sample(1, [[10, 10, 50, 50]], [0.9], [0])], ('cat', 'dog'), backend=backend)
    assert figures['coco/bbox_mAP'] == pytest.approx(1)
    assert figures['coco/bbox_mAP_m'] == pytest.approx(1)
    assert figures['coco/bbox_mAP_s'] == -1


def test_an_image_counts_once(tmp_path):
    """A distributed sampler repeats images so that every process has as many."""
    truth, samples, classes = drawn(np.random.default_rng(5))
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    once = evaluate(tmp_path / 'truth.json', samples, classes)
    assert evaluate(tmp_path / 'truth.json', samples + samples[:2], classes) == once


def test_max_dets(tmp_path):
    """10 detections, the best one wrong: with one counted nothing is found, with two everything."""
    truth = [dict(id=1, image_id=1, category_id=7, bbox=[10, 10, 40, 40], area=1600, iscrowd=0)]
    boxes = [[60, 60, 90, 90], *[[10, 10, 50, 50]] * 9]
    found = [sample(1, boxes, [1 - i / 100 for i in range(10)], [0] * 10)]
    figures = evaluate(by_hand(tmp_path, truth), found, ('cat', 'dog'), max_dets=(1, 2, 3))
    assert figures['coco/bbox_AR@1'] == 0
    assert figures['coco/bbox_AR@2'] == figures['coco/bbox_AR@3'] == 1
    assert figures['coco/bbox_mAP'] == pytest.approx(0.5)


def test_tables_in_the_log(tmp_path, capsys):
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_instance('metric')
    logger.addHandler(handler)
    truth = [dict(id=1, image_id=1, category_id=7, bbox=[10, 10, 40, 40], area=1600, iscrowd=0)]
    capsys.readouterr()
    evaluate(by_hand(tmp_path, truth), [sample(1, [[10, 10, 50, 50]], [0.9], [0])], ('cat', 'dog'))
    text = '\n'.join(lines)
    assert all(name in text for name in NAMES)
    assert '| cat' in text and '| dog' in text and '1.0000' in text and '-1.0000' in text
    assert 'Accumulating' not in capsys.readouterr().out  # pycocotools prints


def test_a_class_name_with_a_line_break_stays_in_its_row(tmp_path, capsys):
    ann_file = tmp_path / 'truth.json'
    images, name = [dict(id=1, file_name='1.jpg', height=100, width=100)], '\rcat\n'
    truth = [dict(id=1, image_id=1, category_id=7, bbox=[10, 10, 40, 40])]
    content = dict(images=images, annotations=truth, categories=[dict(id=7, name=name)])
    ann_file.write_text(json.dumps(content))
    evaluate(ann_file, [sample(1, [[10, 10, 50, 50]], [0.9], [0])], (name,))
    assert '|  cat  | 1.0000 |' in capsys.readouterr().out


def test_errors(tmp_path):
    with pytest.raises(DataError, match='No such file'):
        CocoMetric(ann_file=str(tmp_path / 'none.json'))
    (tmp_path / 'list.json').write_text('[1]')
    with pytest.raises(DataError, match='holds a JSON list'):
        CocoMetric(ann_file=str(tmp_path / 'list.json')).compute_metrics([])
    (tmp_path / 'text.json').write_text('{')
    with pytest.raises(DataError, match='not JSON'):
        CocoMetric(ann_file=str(tmp_path / 'text.json')).compute_metrics([])
    box = dict(image_id=1, category_id=7, bbox=[0, 0, 1, 1])
    with pytest.raises(DataError, match=r'annotations\[1\] has area inf'):
        CocoMetric(ann_file=str(by_hand(tmp_path, [box, dict(box, area=float('inf'))]))).compute_metrics([])
    ann_file = by_hand(tmp_path, [])
    with pytest.raises(ConfigError, match='backend'):
        CocoMetric(ann_file=str(ann_file), backend='fast')
    with pytest.raises(ConfigError, match='max_dets'):
        CocoMetric(ann_file=str(ann_file), max_dets=(100,))
    with pytest.raises(DataError, match="no category 'bird'"):
        evaluate(ann_file, [sample(1, [], [], [])], ('cat', 'bird'))
    for label in (2, -1):
        with pytest.raises(DataError, match=f'no category for label {label}, detected in image 2: there are 2 classes'):
            evaluate(ann_file, [sample(2, [[0, 0, 1, 1]], [0.5], [label])], ('cat', 'dog'))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_not_finite_is_not_ranked(tmp_path, value):
    ann_file = by_hand(tmp_path, [])
    for found in (sample(2, [[0, 0, 1, 1]], [value], [0]), sample(2, [[0, 0, value, 1]], [0.5], [0])):
        with pytest.raises(DataError, match='in image 2 is not finite'):
            evaluate(ann_file, [found], ('cat', 'dog'))


@pytest.mark.parametrize('backend', BACKENDS)
@given(content=st.one_of(layouts, nearly_right()))
def test_any_annotations(tmp_path, backend, content):
    """A figure between 0 and 1, or -1 where there is no object; or an error that names the file."""
    path = tmp_path / 'any.json'
    path.write_text(json.dumps(content))
    found = [sample(1, [[0, 0, 1, 1]], [0.9], [0])]
    try:
        figures = evaluate(path, found, None, backend=backend)
    except DataError as error:
        assert str(error).startswith(str(path)) or 'has no category' in str(error)
        return
    assert all(value == -1 or 0 <= value <= 1 for value in figures.values())


@pytest.mark.parametrize('backend', BACKENDS)
@given(data=st.data())
def test_any_detections(tmp_path, backend, data):
    """Boxes that are finite, however large, thin or turned, and any finite scores."""
    truth = [dict(id=1, image_id=1, category_id=7, bbox=[10, 10, 40, 40], area=1600, iscrowd=0)]
    boxes = data.draw(any_boxes())
    scores = torch.tensor(data.draw(st.lists(coordinates, min_size=len(boxes), max_size=len(boxes))))
    labels = data.draw(st.lists(st.integers(0, 1), min_size=len(boxes), max_size=len(boxes)))
    found = [sample(1, boxes.nan_to_num(0).tolist(), scores.nan_to_num(0).tolist(), labels)]
    figures = evaluate(by_hand(tmp_path, truth), found, ('cat', 'dog'), backend=backend)
    assert all(value == -1 or 0 <= value <= 1 for value in figures.values())


@pytest.mark.parametrize(
    ('name', 'value', 'defined'),
    [
        ('coco/bbox_mAP', 0.0, True),
        ('coco/bbox_mAP', -1.0, False),
        ('coco/bbox_mAP_s', -1, False),
        ('bbox_AR@100', -1.0, False),  # without a prefix
        ('mine/val/bbox_mAP_50', np.float32(-1), False),
        ('coco/bbox_mAP', torch.tensor(-1.0), False),
        ('mine/gain', -1.0, True),  # a number like any other
        ('bbox_mAP/gain', -1.0, True),  # the prefix is not the figure
        ('val_loss', -1.0, True),
        ('val_loss', math.nan, False),
        ('coco/bbox_mAP', math.nan, False),
        ('val_loss', math.inf, False),
        ('val_loss', None, False),
    ],
)
def test_is_defined(name, value, defined):
    assert is_defined(name, value) is defined
