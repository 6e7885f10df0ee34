"""A short training on drawn shapes, what it leaves, and the pages made from it."""

import csv
import json

import pytest

from frdet.insight.found import history
from frdet.insight.report.run import read_run
from tests.tools.test_train_and_test import run_tool
from tests.weights import NARROW_WORDS

QUICK = 'configs/quickstart/r18_fpn_shapes.py'


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    from frdet.datasets import write_shapes

    folder = tmp_path_factory.mktemp('report')
    shapes = write_shapes(folder / 'shapes', num_train=8, num_val=4, image_size=(48, 64))
    done = run_tool(
        'train', QUICK, '--work-dir', folder / 'work', '--cfg-options', *NARROW_WORDS,
        *(f'{split}_dataloader.dataset.data_root={shapes}' for split in ('train', 'val')),
        f'val_evaluator.ann_file={shapes}/annotations/instances_val2017.json',
        *(f'{split}_dataloader.dataset.pipeline.1.short_side=64' for split in ('train', 'val')),
        'train_cfg.max_epochs=2', 'train_cfg.val_interval=1', 'default_hooks.logger.interval=1', root=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'lacks a part' not in done.stdout + done.stderr
    return folder / 'work'


def test_training_leaves_figures(work_dir):
    with open(work_dir / 'results.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['epoch'], row['iter']) for row in rows] == [('1', '2'), ('2', '4')]
    assert all(float(row['loss']) > 0 and 0 <= float(row['coco/bbox_mAP']) <= 1 for row in rows)
    for name in ('curves', 'labels', 'precision_recall', 'classes', 'confusion_matrix', 'errors'):
        assert (work_dir / f'{name}.png').is_file()


def test_training_keeps_what_a_report_needs(work_dir):
    (folder,) = work_dir.glob('*/vis_data')
    names = {path.name for path in folder.iterdir()}
    assert {'run.json', 'detections.json', 'evaluation.npz', 'train_batch_1.jpg', 'train_batch_2.jpg'} <= names
    run = read_run(work_dir)
    assert history([folder], run.analysis.results.truth, [1, 2]).shape == (2, len(run.analysis.results.names))
    assert [record['epoch'] for record in run.log.val] == [1, 2]  # the steps are those of the log
    facts = json.loads((folder / 'run.json').read_text())
    assert facts['has_ids'] is True
    assert len(facts['img_ids']) == 4 and len(facts['classes']) == 6
    assert 'tools/train.py' in facts['command']
    with open(facts['ann_file']) as file:
        truth = json.load(file)
    labels = facts['labels']['validation']
    assert sum(labels['objects']) == len(truth['annotations']) and labels['num_images'] == 4
    for record in json.loads((folder / 'detections.json').read_text()):
        assert record['image_id'] in facts['img_ids']


def test_page(work_dir, tmp_path, browser):
    done = run_tool('report', work_dir, '--out', tmp_path / 'page.html', root=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    content = (tmp_path / 'page.html').read_text()
    assert 'No warnings.' in content
    for title in (
        'Metrics', 'Curves', 'Precision and recall', 'Classes', 'Confusion', 'Errors', 'Worst images',
        'Likely label errors', 'Detections', 'Training batches', 'Labels', 'Settings',
    ):  # fmt: skip
        assert f'>{title}</a>' in content
    browser.check(tmp_path / 'page.html')
    assert (tmp_path / 'label_errors.csv').read_text().startswith('kind,rank,image_id,')


def test_folder_that_is_none(tmp_path):
    done = run_tool('report', tmp_path, root=tmp_path)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'is no work dir' in done.stderr
    assert not list(tmp_path.iterdir())
