"""Every command of "Train on your own data" and of the README's section on it, on small data drawn in each format."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from frdet.apis import DetInferencer
from frdet.config import load_config
from frdet.registry import DETECTORS
from tests import own_data, warm
from tests.test_docs_commands import OWN_DATA, ROOT, commands

BASE = 'configs/_base_/own_data.py'
WEIGHTS = 'fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth'
LINES = [line for page in ('README.md', 'docs/own_data.md', 'docs/data_formats.md') for line in commands(ROOT / page)]
LINES = [line for line in dict.fromkeys(LINES) if re.search(OWN_DATA, line)]
# These do not read labels, or read them as the training does, which every format runs.
ANY_FORMAT = r'tools/(detect|report|browse_dataset|check_data)|--model|--background'
# Options of a model of seconds. Its COCO weights are drawn by the test.
TINY = """
model = dict(
    backbone=dict(depth=18, base_channels=8, init_cfg=None),
    neck=dict(in_channels=(8, 16, 32, 64), out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16, post_nms_train=50, post_nms_test=50),
    roi_head=dict(
        bbox_head=dict(num_classes=None, in_channels=16, conv_channels=16, fc_channels=16, num_convs=1), score_thr=0.0
    ),
)
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
"""


@pytest.fixture(scope='module')
def house(tmp_path_factory):
    """The repository's folder with a smaller base, and the cache of downloaded weights."""
    root = tmp_path_factory.mktemp('house')
    (root / 'tools').symlink_to(ROOT / 'tools')
    shutil.copytree(ROOT / 'configs/_base_', root / 'configs/_base_')
    base = root / BASE
    base.write_text(base.read_text() + TINY)
    torch.manual_seed(0)
    weights = DETECTORS.build(load_config(base, {'model.roi_head.bbox_head.num_classes': 90}).model).state_dict()
    weights = {name: value + 0.01 if name.endswith('running_mean') else value for name, value in weights.items()}
    (root / 'cache').mkdir()
    torch.save({'state_dict': weights, 'meta': {}}, root / 'cache' / WEIGHTS)
    return root


def shell(root: Path, line: str) -> subprocess.CompletedProcess:
    path = f'{warm.python().parent}:{Path(sys.executable).parent}:{os.environ["PATH"]}'
    environment = {**os.environ, 'PATH': path, 'FRDET_CACHE': str(root / 'cache')}
    return subprocess.run(['bash', '-ec', line], cwd=root, env=environment, capture_output=True, text=True, timeout=300)


def test_the_commands_are_found():
    tools = {'new_experiment', 'check_data', 'browse_dataset', 'train', 'report', 'test', 'detect', 'convert_dataset'}
    assert tools <= {re.search(r'tools/(\w+)\.py', line)[1] for line in LINES}


@pytest.mark.parametrize('layout', own_data.LAYOUTS)
def test_from_a_folder_to_a_detector(house, layout):
    for name in ('data', 'work_dirs', 'configs/mine'):
        shutil.rmtree(house / name, ignore_errors=True)
    others = list(own_data.LAYOUTS)
    other = others[others.index(layout) - 1]
    own_data.write(house / 'data/cells', layout, dict(all=own_data.draw(12)))
    parts = dict(train=own_data.draw(12), val=own_data.draw(12)[:4])
    own_data.write(house / 'data/cells_of_june', other, parts)
    for folder in ('new_images', 'empty_plates'):
        (house / 'data' / folder).mkdir()
        Image.fromarray(own_data.draw(1, seed=3)[0].pixels).save(house / 'data' / folder / 'plate.jpg')
    for line in LINES:
        if 'export_onnx' in line:  # a minute; tests/apis/export/test_exporting.py
            continue
        if layout != 'coco' and re.search(ANY_FORMAT, line):
            continue
        done = shell(house, line.replace('epoch_20', 'epoch_1'))
        assert done.returncode == 0, f'{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}'
        for config in (house / 'configs/mine').glob('*.py'):
            config.write_text(re.sub(r'max_epochs=\d+', 'max_epochs=1', config.read_text()))
    found = DetInferencer(str(house / 'work_dirs/cells/epoch_1.pth'), score_thr=0.0)(
        house / 'data/new_images/plate.jpg'
    )
    assert len(found.boxes) and set(found.classes) == {name for one in own_data.draw(12) for name, _ in one.objects}
    once = (
        'cells.html',
        'work_dirs/cells/report.html',
        'work_dirs/detect/plate.jpg',
        'configs/mine/cells_retinanet.py',
    )
    for page in ('data/cells_coco', *(once if layout == 'coco' else ())):
        assert (house / page).exists(), page
