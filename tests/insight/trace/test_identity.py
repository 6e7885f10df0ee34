"""What a trace calls found is what pycocotools calls found, on drawn and real images."""

import contextlib
import io
import json
import os
import subprocess

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from frdet.datasets.shapes import write_shapes
from tests import warm
from tests.insight.trace.losing import ROOT, read_trace
from tests.insight.trace.small import MOST, large_things, photographs, shapes, trace_small, weights

FAMILIES = ('two stages', 'one stage', 'cascade')
VAL = 'annotations/instances_val2017.json'


def found_by_pycocotools(ann_file, results, iou, classes):
    """Ids of the annotations that a detection which counts is matched with."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(ann_file))
        evaluator = COCOeval(truth, truth.loadRes(str(results)), 'bbox')
        evaluator.params.iouThrs, evaluator.params.maxDets = [iou], [MOST]
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluator.params.catIds = truth.getCatIds(catNms=list(classes))
        evaluator.evaluate()
    images = [image for image in evaluator.evalImgs if image is not None]
    return {int(g) for image in images for g in image['dtMatches'][0][~image['dtIgnore'][0].astype(bool)] if g}


def objects_of(ann_file, classes, images):
    """Ids of the annotations that count."""
    content = json.loads(ann_file.read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    chosen = [image['id'] for image in content['images'] if images is None or image['id'] in images]
    return {
        a['id']
        for a in content['annotations']
        if names[a['category_id']] in classes and a['image_id'] in chosen and not a.get('iscrowd')
    }


class Runs:
    """Traces of the detectors, each made once."""

    def __init__(self, folder, coco_root):
        self.folder, self.coco_root = folder, coco_root
        self.root = write_shapes(folder / 'shapes', num_train=1, num_val=7)  # two processes see one of them twice
        self.things = large_things(coco_root, folder / 'things.json')
        self.known = {}

    def config(self, family, **changes):
        if family == 'photographs':
            return photographs(self.coco_root, self.things, **changes)
        return shapes(self.root, family, **changes)

    def checkpoint(self, family, seed):
        path = self.folder / f'{family} {seed}.pth'
        return str(path) if path.exists() else weights(self.config(family), seed, path)

    def trace(self, family, seed, *, batch_size=1, **options):
        key = repr((family, seed, batch_size, options))
        if key not in self.known:
            cfg = self.config(family, **{'test_dataloader.batch_size': batch_size})
            trace_small(cfg, self.checkpoint(family, seed), self.folder / key, **options)
            self.known[key] = read_trace(self.folder / key / 'trace'), self.folder / key / 'results.json'
        return self.known[key]

    def ann_file(self, family):
        return self.things if family == 'photographs' else self.root / VAL


@pytest.fixture(scope='module')
def runs(coco_root, tmp_path_factory):
    return Runs(tmp_path_factory.mktemp('runs'), coco_root)


#: family, seed of the weights, options of the trace, number of images in a batch
CASES = [
    *((family, seed, {}, 1) for family in (*FAMILIES, 'photographs') for seed in (0, 1)),
    *((family, 1, dict(iou=0.75), 4) for family in (*FAMILIES, 'photographs')),
    *((family, 0, dict(amp=True), 4) for family in (*FAMILIES, 'photographs')),
]


@pytest.mark.parametrize(('family', 'seed', 'options', 'batch_size'), CASES, ids=str)
def test_found_are_the_true_positives(runs, family, seed, options, batch_size):
    traced, results = runs.trace(family, seed, batch_size=batch_size, **options)
    summary, ann_file = traced.summary, runs.ann_file(family)
    images = {one['image_id'] for one in json.loads(results.read_text())}
    assert {int(row['id']) for row in traced.rows} == objects_of(ann_file, summary.classes, images)
    found = {int(row['id']) for row in traced.rows if row['stage'] == 'found'}
    assert found == found_by_pycocotools(ann_file, results, options.get('iou', 0.5), summary.classes)
    for row in traced.rows:  # nothing is told of a detection that the object does not have
        assert row['detection_iou'] is None or row['detection_iou'] >= summary.iou
        assert (row['detection_score'] is not None) == (row['detection_iou'] is not None)
        assert row['why'] or row['stage'] == 'found'


@pytest.mark.parametrize('family', (*FAMILIES, 'photographs'))
def test_something_is_found_and_lost_at_several_stages(runs, family):
    counts = [runs.trace(family, seed)[0].summary.counts for seed in (0, 1)]
    assert sum(one['found'] for one in counts) >= 3
    assert sum(1 for name in counts[0] if any(one[name] for one in counts)) >= 4


@pytest.mark.parametrize('family', FAMILIES)
def test_false_positives_are_the_other_detections(runs, family):
    """Every detection that counts is a true positive or in detections.csv: no crowd is near in the drawn images."""
    traced, results = runs.trace(family, 1)
    listed = json.loads(results.read_text())
    per_class = {}
    for one in listed:
        per_class.setdefault((one['image_id'], one['category_id']), []).append(one)
    counted = sum(min(len(some), MOST) for some in per_class.values())
    assert len(traced.wrong) == counted - traced.summary.counts['found'] > 0


@pytest.mark.parametrize('family', FAMILIES)
def test_batches_of_four(runs, family):
    """Images of one size: batches differ from single images in nothing but rounding."""
    one, four = (runs.trace(family, 0, batch_size=size)[0] for size in (1, 4))
    assert [(row['id'], row['stage']) for row in one.rows] == [(row['id'], row['stage']) for row in four.rows]


def test_two_processes(runs, tmp_path):
    one = runs.trace('two stages', 0)[0]
    words = [tmp_path / 'meet', runs.root, runs.checkpoint('two stages', 0), tmp_path / 'out']
    env = {**os.environ, 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    run = [
        subprocess.Popen(
            [warm.python(), '-m', 'tests.insight.trace.small', str(rank), *map(str, words)], cwd=ROOT, env=env
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in run] == [0, 0]
    two = read_trace(tmp_path / 'out/trace')
    assert sorted(map(repr, two.rows)) == sorted(map(repr, one.rows))
    assert sorted(map(repr, two.wrong)) == sorted(map(repr, one.wrong))
    assert (two.summary.counts, two.summary.images) == (one.summary.counts, one.summary.images)
    assert two.summary.metrics == pytest.approx(one.summary.metrics)
    names = sorted(path.name for path in (tmp_path / 'out/trace').iterdir())
    assert names == ['cards.json', 'detections.csv', 'objects.csv', 'trace.json']
