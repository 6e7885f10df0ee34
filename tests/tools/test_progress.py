"""Training by the tool, at a terminal."""

import re
import sys

import pytest

from frdet.datasets.shapes import write_shapes
from tests import terminal
from tests.tools.test_train_and_test import ROOT

CONFIG = 'configs/quickstart/r18_fpn_shapes.py'


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    root = write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=8, num_val=2, image_size=(64, 64))
    data = [f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'val')]
    return ['--cfg-options', *data, f'val_evaluator.ann_file={root}/annotations/instances_val2017.json']


def test_ctrl_c_leaves_training_and_the_terminal_as_it_was(options, tmp_path):
    """Two workers load the images; 8 images, 4 a batch, 7 epochs are 14 iterations."""
    command = [sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path, *options]
    shown = terminal.run(command, ROOT, ctrl_c_after='s/iter')
    assert shown.code == 130, shown.raw
    lines = terminal.lines(shown.raw)
    assert any(re.fullmatch(r'Epoch \d/7, iteration [━╸╺]+ +\d+/14 ETA \d:\d\d:\d\d', line) for line in lines)
    names = r'loss [\d.]+  loss_rpn_cls [\d.]+  loss_rpn_bbox [\d.]+  loss_cls [\d.]+  loss_bbox [\d.]+'
    assert any(re.fullmatch(rf'lr [\d.e-]+  [\d.]+ s/iter  {names}', line) for line in lines)
    assert any(line.startswith('Stopped after iteration') for line in lines) and 'Traceback' not in shown.raw
    end = shown.raw[shown.raw.rindex('━') :]
    assert '\x1b[2K' in end and end.rindex(terminal.SHOW) > end.rfind(terminal.HIDE)
