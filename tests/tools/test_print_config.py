import os
import subprocess
from pathlib import Path

from mmengine.config import Config

from frdet.config import load_config
from tests import warm

ROOT = Path(__file__).resolve().parents[2]
MAIN = 'configs/faster_rcnn/r50_fpn_1x_cocoval.py'


def run(*args):
    return subprocess.run(
        [warm.python(), 'tools/print_config.py', *args], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )


def test_prints_a_config_that_reads_back(tmp_path):
    done = run(MAIN, '--cfg-options', 'train_dataloader.batch_size=6')
    assert done.returncode == 0, done.stderr
    again = tmp_path / 'again.py'
    again.write_text(done.stdout)
    expected = load_config(ROOT / MAIN, ['train_dataloader.batch_size=6'])
    assert Config.fromfile(again).to_dict() == expected.to_dict()


def test_origin_names_file_and_override():
    done = run(MAIN, '--origin', '--cfg-options', 'model.roi_head.score_thr=0.1')
    assert done.returncode == 0, done.stderr
    lines = {line.split(' = ')[0]: line for line in done.stdout.splitlines()}
    assert lines['model.roi_head.score_thr'].endswith('# override')
    assert 'configs/_base_/models/faster_rcnn_r50_fpn.py:' in lines['model.backbone.depth']
    assert f'{MAIN}:' in lines['train_dataloader.dataset.ann_file']


def test_mistake_is_one_line_and_exit_code_1():
    done = run(MAIN, '--cfg-options', 'train_dataloder.batch_size=6')
    assert done.returncode == 1
    assert done.stdout == ''
    assert done.stderr.startswith('error: ') and 'did you mean train_dataloader' in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
