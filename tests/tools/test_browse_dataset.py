import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/faster_rcnn/r50_fpn_1x_cocoval.py'


def browse(*args, root):
    return subprocess.run(
        [sys.executable, 'tools/browse_dataset.py', *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'FRDET_DATA_ROOT': str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_draws_the_images_of_a_config(coco_root, tmp_path):
    short = 'train_dataloader.dataset.pipeline.1.short_side=128'
    done = browse(CONFIG, '--out', tmp_path, '--num', 3, '--cfg-options', short, root=coco_root.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'3 pictures and {tmp_path}/sheet.jpg' in done.stdout
    assert len(list(tmp_path.glob('*.jpg'))) == 4


def test_missing_data_is_said_in_words(tmp_path):
    done = browse(CONFIG, '--out', tmp_path / 'out', root=tmp_path / 'none')
    assert done.returncode == 1
    assert 'tools/download_coco.py' in done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    assert not (tmp_path / 'out').exists()


def test_an_unknown_config(tmp_path):
    done = browse('configs/none.py', root=tmp_path)
    assert done.returncode == 1
    assert 'configs/none.py' in done.stderr
    assert 'Traceback' not in done.stderr
