"""A user's reader of a CSV file, docs/examples/table_dataset.py, does all that COCO's does."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import warm

ROOT = Path(__file__).resolve().parents[1]
BOXES = {'a.png': [(10, 12, 40, 50, 'dog')], 'b.png': [(5, 5, 45, 30, 'cat'), (30, 20, 60, 60, 'dog')], 'c.png': []}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Three images of 64 x 72 pixels in each of two folders, and a table of each."""
    root = tmp_path_factory.mktemp('csv')
    for seed, name in enumerate(('train', 'val')):
        (root / name).mkdir()
        lines = []
        for place, (path, boxes) in enumerate(BOXES.items()):
            pixels = np.random.default_rng([seed, place]).integers(0, 255, (72, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / path)
            lines += [','.join(map(str, (path, *box))) for box in boxes] or [f'{path},,,,,']
        (root / f'{name}.csv').write_text('\n'.join(lines) + '\n')
    (root / 'csv_config.py').write_text(
        f"""_base_ = '{ROOT}/configs/quickstart/r18_fpn_shapes.py'
custom_imports = dict(imports=['table_dataset'])
def part(name, **kwargs):
    return dict(type='TableDataset', data_root='{root}', ann_file=f'{{name}}.csv', data_prefix=dict(img=name), **kwargs)
train = part('train', filter_cfg=dict(filter_empty_gt=True), pipeline={{{{_base_.train_pipeline}}}})
val = part('val', test_mode=True, pipeline={{{{_base_.test_pipeline}}}})
again = part('train', test_mode=True, pipeline={{{{_base_.test_pipeline}}}})
train_dataloader = dict(batch_size=2, dataset=dict(_delete_=True, type='RepeatDataset', times=1, dataset=train))
both = dict(_delete_=True, type='ConcatDataset', datasets=[val, again])
val_dataloader = dict(dataset=both)
test_dataloader = dict(dataset=both)
val_evaluator = [
    dict(type='CocoMetric', prefix='val', ann_file='{root}/val.csv'),
    dict(type='CocoMetric', prefix='train', ann_file='{root}/train.csv'),
    dict(type='CocoMetric', prefix='both'),
]
test_evaluator = val_evaluator
model = dict(backbone=dict(base_channels=16), neck=dict(in_channels=None), roi_head=dict(bbox_head=dict(num_classes=2)))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1, save_best='val/bbox_mAP'))
"""
    )
    return root


def tool(name, *args):
    path = os.pathsep.join([str(ROOT), f'{ROOT}/docs/examples', os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        [warm.python(), f'tools/{name}.py', *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def test_training_detecting_checking_and_looking(root, tmp_path):
    config, work = root / 'csv_config.py', tmp_path / 'work'
    code, output = tool('train', config, '--work-dir', work)
    assert code == 0, output
    assert all(f'{prefix}/bbox_mAP' in output for prefix in ('val', 'train', 'both'))
    # For the report: the truth of the first metric as COCO's JSON, under the ids that the detections have.
    (facts,) = work.glob('*/vis_data/run.json')
    truth = json.loads((facts.parent / 'truth.json').read_text())
    assert [image['id'] for image in truth['images']] == list(BOXES)
    assert [(item['image_id'], item['category_id'], item['bbox']) for item in truth['annotations']] == [
        ('a.png', 2, [10, 12, 30, 38]),
        ('b.png', 1, [5, 5, 40, 25]),
        ('b.png', 2, [30, 20, 30, 40]),
    ]
    code, output = tool('report', work, '--out', tmp_path / 'report')
    assert code == 0 and 'not known' not in output, output
    options = ('--out', tmp_path / 'found', '--score-thr', 0)
    code, output = tool('detect', root / 'val', config, work / 'epoch_1.pth', *options)
    assert code == 0, output
    found = json.loads((tmp_path / 'found/detections.json').read_text())
    assert {(item['category_id'], item['category_name']) for item in found} <= {(1, 'cat'), (2, 'dog')}
    code, output = tool('browse_dataset', config, '--out', tmp_path / 'page.html', '--num', 2)
    assert code == 0, output
    assert (tmp_path / 'page.html').read_text().count('<figure data-filtered>') == 4


def test_what_check_data_finds(root, tmp_path):
    """``train`` is tested, too, in the joined set."""
    code, output = tool('check_data', root / 'csv_config.py', '--images')
    assert code == 0, output
    assert 'val.csv (val, test): 3 images, 3 annotations, 2 categories' in output
    assert 'image in two splits' in output
    wrong = tmp_path / 'wrong.csv'
    wrong.write_text('a.png,10,12,80,50,dog\na.png,70,5,90,30,cat\nb.png,1,1,2,2,dog\nb.png,1,1,2,2,dog\n')
    code, output = tool(
        'check_data', root / 'csv_config.py', '--cfg-options', f'train_dataloader.dataset.dataset.ann_file={wrong}'
    )
    assert code == 1
    for words in ('box outside its image', 'boxes[1]: [70, 5, 90, 30] in image a.png of 64x72', 'repeated box'):
        assert words in output
    wrong.write_text('a.png,10,12,80,dog\n')
    code, output = tool(
        'check_data', root / 'csv_config.py', '--cfg-options', f'train_dataloader.dataset.dataset.ann_file={wrong}'
    )
    assert code == 1
