"""Two processes on this machine train and test the detector."""

import json
import os
import subprocess

import pytest

from frdet.datasets import write_shapes
from tests import warm
from tests.tools.test_train_and_test import ROOT, scalars
from tests.weights import NARROW_WORDS

CONFIG = 'configs/quickstart/r18_fpn_shapes.py'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=13, num_val=5)


def launch(script: str, *args: object) -> subprocess.CompletedProcess:
    env = {**os.environ, **warm.launching(), 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        ['bash', f'tools/{script}.sh', *map(str, args)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600
    )


def test_two_processes_train_and_test(shapes, tmp_path):
    options = [
        *NARROW_WORDS,
        *(f'{split}_dataloader.dataset.data_root={shapes}' for split in ('train', 'val', 'test')),
        *(f'{split}_evaluator.ann_file={shapes}/annotations/instances_val2017.json' for split in ('val', 'test')),
        *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
        'train_dataloader.batch_size=2',
        'train_cfg.max_epochs=1',
        'param_scheduler.0.end=2',
        'default_hooks.logger.interval=1',
        'default_hooks.report=None',
        'model.roi_head.score_thr=0.0',
    ]
    done = launch('dist_train', CONFIG, 2, '--work-dir', tmp_path / 'work', '--cfg-options', *options)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [r for r in scalars(tmp_path / 'work') if 'loss' in r]
    assert len(records) == 4  # 13 images are 7 for each process, one of them twice; 2 at a time
    assert records[-1]['lr'] == pytest.approx(base_lr() * 4 / base_batch())

    out = tmp_path / 'results.json'
    done = launch(
        'dist_test', CONFIG, tmp_path / 'work/epoch_1.pth', 2, '--work-dir', tmp_path / 'tested', '--out', out,
        '--cfg-options', *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    images = json.loads((shapes / 'annotations/instances_val2017.json').read_text())['images']
    per_image = {image['id']: sum(r['image_id'] == image['id'] for r in found) for image in images}
    # 5 images on 2 processes: one is processed twice, and counted once. No threshold: 100 detections an image at most.
    assert {r['image_id'] for r in found} == set(per_image)
    assert all(0 < count <= 100 for count in per_image.values())
    keys = [(r['image_id'], r['category_id'], *r['bbox'], r['score']) for r in found]
    assert len(keys) == len(set(keys))


def base_lr() -> float:
    from frdet.config import load_config

    return load_config(ROOT / CONFIG).optim_wrapper.optimizer.lr


def base_batch() -> int:
    from frdet.config import load_config

    return load_config(ROOT / CONFIG).auto_scale_lr.base_batch_size
