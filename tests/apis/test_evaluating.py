"""Evaluating a results JSON alone gives the figures of pycocotools on the same two files."""

import json
import sys

import numpy as np
import pytest

from frdet.apis.evaluating import evaluate_results, evaluate_results_of
from frdet.config import load_config
from frdet.datasets.shapes import write_shapes
from frdet.errors import ConfigError, DataError
from tests.engine import toy
from tests.evaluation import test_segm
from tests.evaluation.test_coco_metric import directly, drawn_set
from tools import evaluate as tool

CONFIG = toy.ROOT / 'configs/quickstart/r18_fpn_shapes.py'


def results_of(truth, rng):
    """Boxes near the annotated ones with decimals that no binary number has exactly, and wrong ones."""
    names = [category['id'] for category in truth['categories']]
    records = []
    for annotation in truth['annotations']:
        for _ in range(int(rng.integers(0, 4))):
            box = [round(value + float(rng.normal(0, 3)), 2) for value in annotation['bbox']]
            category = annotation['category_id'] if rng.random() < 0.8 else int(rng.choice(names))
            score = int(rng.integers(1, 20)) / 20  # many ties
            one = dict(image_id=annotation['image_id'], category_id=category, bbox=box, score=score)
            records.append({**one, 'segmentation': []})  # a key that does not matter
    return records


@pytest.mark.parametrize('seed', range(6))
def test_equal_to_pycocotools(tmp_path, seed):
    truth = drawn_set(seed)[0]
    ann_file, results = tmp_path / 'truth.json', tmp_path / 'results.json'
    ann_file.write_text(json.dumps(truth))
    results.write_text(json.dumps(results_of(truth, np.random.default_rng(seed))))
    figures = evaluate_results_of(ann_file, results)
    assert 0 < figures['coco/bbox_mAP'] < 1
    assert figures == {f'coco/{name}': value for name, value in directly(ann_file, results).items()}


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=2, num_val=4)


@pytest.fixture
def given(shapes, tmp_path):
    """Annotation file, results that find everything in it, and the options of the config for this data."""
    ann_file = shapes / 'annotations/instances_val2017.json'
    annotations = json.loads(ann_file.read_text())['annotations']
    keys = ('image_id', 'category_id', 'bbox')
    records = [{**{key: one[key] for key in keys}, 'score': 0.9} for one in annotations if not one['iscrowd']]
    (tmp_path / 'results.json').write_text(json.dumps(records))
    return ann_file, tmp_path / 'results.json', [f'test_dataloader.dataset.data_root={shapes}']


def test_a_config_gives_data_and_classes(given):
    ann_file, results, options = given
    assert evaluate_results(load_config(CONFIG, options), results)['coco/bbox_mAP'] == pytest.approx(1)
    assert evaluate_results_of(ann_file, results)['coco/bbox_AR@100'] == pytest.approx(1)
    chosen = [*options, 'test_dataloader.dataset.metainfo.classes=[star]', 'test_evaluator.prefix=mine']
    assert evaluate_results(load_config(CONFIG, chosen), results)['mine/bbox_mAP'] in (pytest.approx(1), -1)


def test_images_of_a_subset_alone_count(given):
    """All detections of the other images are taken away: the two images that are tested keep their 1."""
    ann_file, results, options = given
    kept = sorted(image['id'] for image in json.loads(ann_file.read_text())['images'])[:2]
    records = json.loads(results.read_text())
    results.write_text(json.dumps([one for one in records if one['image_id'] in kept]))
    cfg = load_config(CONFIG, [*options, 'test_dataloader.dataset.indices=2'])
    assert evaluate_results(cfg, results)['coco/bbox_mAP'] == pytest.approx(1)
    assert evaluate_results_of(ann_file, results)['coco/bbox_AR@100'] < 0.9


@pytest.mark.parametrize('key', ['test_evaluator', 'test_dataloader'])
def test_a_config_without_a_test(given, key):
    cfg = load_config(CONFIG, given[2])
    cfg[key] = None
    with pytest.raises(ConfigError, match='needs test_dataloader.dataset, and CocoMetric in test_evaluator'):
        evaluate_results(cfg, given[1])


def test_the_command(given, monkeypatch, capsys):
    ann_file, results, options = given
    for truth, more in ((ann_file, []), (CONFIG, ['--cfg-options', *options])):
        monkeypatch.setattr(sys, 'argv', ['evaluate.py', str(truth), str(results), *more])
        tool.main()
    monkeypatch.setattr(sys, 'argv', ['evaluate.py', str(results), str(results)])
    with pytest.raises(DataError, match='results.json holds a JSON list'):
        tool.main()
    monkeypatch.setattr(sys, 'argv', ['evaluate.py', str(ann_file), str(results), '--cfg-options', 'a=1'])
    with pytest.raises(SystemExit):
        tool.main()
    assert '--cfg-options needs a config' in capsys.readouterr().err


def test_masks_alone(tmp_path):
    """Written by the metric, read again from the file, of which another project left out the boxes."""
    content, samples = test_segm.drawn(4)
    ann_file, out = tmp_path / 'truth.json', tmp_path / 'out.json'
    ann_file.write_text(json.dumps(content))
    expected, _ = test_segm.evaluate(ann_file, samples, outfile=str(out))
    assert evaluate_results_of(ann_file, out) == expected
    records = json.loads(out.read_text())
    assert all(isinstance(record['segmentation']['counts'], str) for record in records)
    for record in records:
        del record['bbox']
    out.write_text(json.dumps(records))
    segm = {name: value for name, value in expected.items() if 'segm' in name}
    assert evaluate_results_of(ann_file, out, kinds=['segm']) == segm
    assert set(evaluate_results_of(ann_file, out)) == set(expected)


def test_masks_and_the_command(given, monkeypatch, tmp_path):
    """The drawn data set has masks. A file of boxes alone has none, and so has an annotation file of boxes alone."""
    ann_file, results, options = given
    content = json.loads(ann_file.read_text())
    keys = ('image_id', 'category_id', 'segmentation')
    masked = tmp_path / 'masked.json'
    masked.write_text(json.dumps([{**{key: one[key] for key in keys}, 'score': 0.9} for one in content['annotations']]))
    assert evaluate_results_of(ann_file, masked)['coco/segm_mAP'] == pytest.approx(1)
    masks = [*options, 'test_dataloader.dataset.with_masks=True']
    assert evaluate_results(load_config(CONFIG, masks), masked, kinds=['segm'])['coco/segm_mAP'] == pytest.approx(1)
    assert set(evaluate_results(load_config(CONFIG, masks), masked)) == set(evaluate_results_of(ann_file, results))
    for truth, found, message in [
        (CONFIG, masked, 'was read without masks, .* set with_masks=True'),
        (ann_file, results, 'item 0 has no mask'),
    ]:
        more = ['--cfg-options', *options] if truth is CONFIG else []
        monkeypatch.setattr(sys, 'argv', ['evaluate.py', str(truth), str(found), '--metric', 'segm', *more])
        with pytest.raises(DataError, match=message):
            tool.main()
    for annotation in content['annotations']:
        del annotation['segmentation']
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match='was read without masks'):
        evaluate_results_of(tmp_path / 'boxes.json', masked)
    assert 'coco/bbox_mAP' in evaluate_results_of(tmp_path / 'boxes.json', masked, kinds=['bbox'])
