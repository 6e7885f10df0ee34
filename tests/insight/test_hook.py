"""What a training leaves behind, and that no failure of it ends the training."""

import csv
import json
from importlib import metadata
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.structures import InstanceData
from PIL import Image

from frdet.datasets.annotations import Annotations
from frdet.evaluation import CocoMetric
from frdet.evaluation.backends import CocoEval
from frdet.evaluation.truth import Source, Truth
from frdet.insight import ReportHook, found, hook, report, store
from frdet.structures import DetDataSample
from tests.engine import toy

LACKS = 'The report of this training lacks a part'


def train(work_dir):
    runner = toy.runner(work_dir, report=True, **{'train_cfg.max_epochs': 2})
    runner.train()
    return runner, next(work_dir.glob('*/*.log')).read_text()


def test_every_training_leaves_a_table(tmp_path):
    runner, log = train(tmp_path)
    assert LACKS not in log
    with open(tmp_path / 'results.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['epoch'], row['iter'], row['coco/bbox_mAP']) for row in rows] == [
        ('1', '4', '0.12'),
        ('2', '8', '0.12'),
    ]
    facts = store.load_facts(next(tmp_path.glob('*/vis_data')))
    assert (facts.iters_per_epoch, facts.classes, facts.ann_file) == (4, ['cat', 'dog'], None)
    assert ['torch', metadata.version('torch')] in facts.versions
    assert (tmp_path / 'curves.png').is_file() and not (tmp_path / 'confusion_matrix.png').exists()


def test_a_failure_is_a_warning(tmp_path, monkeypatch):
    def failing(name):
        def fail(*args, **kwargs):
            raise RuntimeError(f'no {name}')

        return fail

    calls = [(store, 'gather_facts'), (store, 'save_batch'), (report, 'write_files')]
    for module, name in calls:
        monkeypatch.setattr(module, name, failing(name))
    runner, log = train(tmp_path)
    assert runner.iter == 8
    for _, name in calls:
        assert f'{LACKS} (RuntimeError: no {name})' in log


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(hook, 'is_main_process', lambda: False)
    train(tmp_path)
    assert not list(tmp_path.rglob('run.json')) and not (tmp_path / 'results.csv').exists()


def fake_runner(tmp_path, metric, classes=('cat', 'dog')):
    dataset = SimpleNamespace(metainfo=dict(classes=classes))
    return SimpleNamespace(
        log_dir=str(tmp_path / 'log'), val_loop=True, val_evaluator=SimpleNamespace(metrics=[metric]),
        train_dataloader=SimpleNamespace(dataset=dataset), logger=MMLogger.get_instance('fake'),
    )  # fmt: skip


def test_detections_that_the_config_writes_elsewhere(tmp_path):
    metric = CocoMetric(outfile=str(tmp_path / 'mine.json'))
    ids = [2**70, 'nine']
    metric.evaluations['bbox'] = CocoEval(np.full((1, 3, 2, 4, 3), 0.25), np.zeros((1, 2, 4, 3)), np.array([0.5]), ids)
    (tmp_path / 'mine.json').write_text('[1]')
    folder = tmp_path / 'log/vis_data'
    folder.mkdir(parents=True)
    ReportHook().after_val_epoch(fake_runner(tmp_path, metric))
    assert (folder / store.DETECTIONS).read_text() == '[1]'
    kept = store.load_evaluation(folder)
    assert (kept.precision == 0.25).all() and kept.precision.shape == (1, 3, 2, 4, 1)
    assert kept.cat_ids == ids and kept.iou_thresholds.tolist() == [0.5]


@pytest.mark.parametrize(('loop', 'step'), [(EpochBasedTrainLoop, 3), (IterBasedTrainLoop, 12)])
def test_objects_found_are_kept_at_the_step_of_the_log(tmp_path, monkeypatch, loop, step):
    metric = CocoMetric(outfile=str(tmp_path / 'log/vis_data' / store.DETECTIONS))
    metric.evaluations['bbox'] = CocoEval(np.zeros((1, 3, 2, 4, 3)), np.zeros((1, 2, 4, 3)), np.array([0.5]), [1, 2])
    runner = fake_runner(tmp_path, metric)
    runner.train_loop, runner.epoch, runner.iter = object.__new__(loop), 3, 12
    (tmp_path / 'log/vis_data').mkdir(parents=True)
    kept, report_hook = {}, ReportHook()
    monkeypatch.setattr(store, 'load_results', lambda facts, folder: (facts, folder))
    monkeypatch.setattr(found, 'keep', lambda folder, results, step: kept.update({step: results}))
    report_hook.after_val_epoch(runner)
    assert kept == {}  # nothing is known about the annotations
    report_hook._facts = 'facts'
    report_hook.after_val_epoch(runner)
    assert kept == {step: ('facts', tmp_path / 'log/vis_data')}


@pytest.mark.parametrize(('ids', 'has_ids'), [(None, False), (['a7'], True)])
def test_whether_annotations_have_ids_is_kept(tmp_path, monkeypatch, ids, has_ids):
    """The file that the report reads has numbers where the user's format has no ids."""
    kept, metric = {}, CocoMetric()
    image = dict(file_name='1.png', height=9, width=9)
    content = Annotations(
        images=[image], categories=['cat'], image_index=[0], category_index=[0], boxes=[[1, 1, 5, 5]], ids=ids
    )
    metric._known = Truth([Source('voc', content, None)])
    runner = fake_runner(tmp_path, metric)
    runner.train_loop, runner.val_dataloader = object.__new__(IterBasedTrainLoop), runner.train_dataloader
    monkeypatch.setattr(store, 'gather_facts', lambda *_, **facts: kept.update(facts))
    ReportHook().before_train(runner)
    assert kept['has_ids'] is has_ids
    assert json.loads((tmp_path / 'log/vis_data/truth.json').read_text())['annotations'][0]['id'] == (ids or [1])[0]


def test_first_batches(tmp_path):
    """BGR images, as the pipeline leaves them: a red one, twice as large as it is kept, with a box."""
    image = torch.zeros(3, 1280, 1280, dtype=torch.uint8)
    image[2] = 200
    sample = DetDataSample()
    box = torch.tensor([[320.0, 320.0, 960.0, 960.0]])
    sample.gt_instances = InstanceData(bboxes=box, labels=torch.tensor([0]))
    hook, runner = ReportHook(batches=2), fake_runner(tmp_path, None)
    for number in range(3):
        hook.before_train_iter(runner, number, dict(inputs=[image], data_samples=[sample]))
    assert sorted(path.name for path in (tmp_path / 'log/vis_data').iterdir()) == [
        'train_batch_1.jpg',
        'train_batch_2.jpg',
    ]
    picture = np.asarray(Image.open(tmp_path / 'log/vis_data/train_batch_1.jpg')).astype(int)
    height, width = picture.shape[:2]
    assert max(height, width) < 400
    is_red = np.abs(picture - [200, 0, 0]).max(axis=2) < 40
    assert is_red[height // 8, width // 2] and is_red[height // 2, width // 2]
    # The box's sides lie a quarter into the picture.
    assert not is_red[height // 2, int(width * 0.22) : int(width * 0.29)].all()
    assert is_red[height // 2, int(width * 0.3) : int(width * 0.7)].all()
