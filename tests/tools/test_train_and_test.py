"""The two commands of the README on real images, shortened by ``--cfg-options``."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import warm
from tests.weights import NARROW_WORDS, write_r50_pkl

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/faster_rcnn/r50_fpn_1x_cocoval.py'
FIGURES = (
    'bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l',
    'bbox_AR@1', 'bbox_AR@10', 'bbox_AR@100', 'bbox_AR_s', 'bbox_AR_m', 'bbox_AR_l',
)  # fmt: skip


def run_tool(tool: str, *args: object, root: Path, **env: str) -> subprocess.CompletedProcess:
    """A tool as a user runs it, from the repository's root."""
    return subprocess.run(
        [warm.python(), f'tools/{tool}.py', *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'FRDET_DATA_ROOT': str(root), **env},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope='module')
def r50_pkl(coco_root, tmp_path_factory):
    files = sorted((coco_root.root / coco_root.val_prefix).glob('*.jpg'))[:4]
    images = [np.asarray(Image.open(f).convert('RGB').resize((160, 128)))[:, :, ::-1] for f in files]
    return write_r50_pkl(tmp_path_factory.mktemp('weights') / 'R-50.pkl', images)


@pytest.fixture(scope='module')
def small(coco_root, r50_pkl):
    """Options that make the run small: 96 pixels, 12 images, a narrow box head, a warm-up that ends within the run."""
    with open(coco_root.root / coco_root.val_ann) as f:
        num_classes = len(json.load(f)['categories'])
    options = [
        *NARROW_WORDS,
        f'model.backbone.init_cfg.checkpoint={r50_pkl}',
        f'model.roi_head.bbox_head.num_classes={num_classes}',
        'model.roi_head.bbox_head.fc_channels=64',
        'model.roi_head.sampler.num=64',
        'model.rpn_head.post_nms_train=200',
        'model.rpn_head.post_nms_test=100',
        'train_dataloader.num_workers=0',
        'train_dataloader.dataset.pipeline.1.short_side=96',
        'train_dataloader.dataset.pipeline.1.max_size=144',
        'train_dataloader.dataset.indices=12',
        'param_scheduler.0.end=4',
        'train_cfg.max_epochs=3',
        'train_cfg.val_interval=3',
        'default_hooks.logger.interval=1',
        'randomness.seed=1',
    ]
    return [*options, *TEST_OPTIONS]


TEST_OPTIONS = [
    *(
        f'{split}_dataloader.{option}'
        for split in ('val', 'test')
        for option in (
            'num_workers=0',
            'dataset.indices=8',
            'dataset.pipeline.1.short_side=96',
            'dataset.pipeline.1.max_size=144',
        )
    ),
]


@pytest.fixture(scope='module')
def trained(coco_root, small, tmp_path_factory):
    """The first command: its output and its work dir."""
    work_dir = tmp_path_factory.mktemp('work')
    done = run_tool(
        'train', CONFIG, '--work-dir', work_dir, '--cfg-options', 'train_dataloader.batch_size=6', *small,
        root=coco_root.root,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr, work_dir


def scalars(work_dir: Path) -> list[dict]:
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_training_has_finite_falling_losses(trained):
    records = [r for r in scalars(trained[1]) if 'loss' in r]
    losses = [r['loss'] for r in records]
    assert len(losses) == 6  # 12 images, 6 a batch, 3 epochs
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    for name in ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'):
        assert all(name in r for r in records)


def test_learning_rate_follows_the_batch(trained):
    """0.02 for 16 images is 0.0075 for 6; the warm-up of this run ends after its third iteration."""
    log, work_dir = trained
    rates = [r['lr'] for r in scalars(work_dir) if 'lr' in r]
    assert rates[-1] == pytest.approx(0.02 * 6 / 16)
    assert rates[0] == pytest.approx(0.001 * 0.02 * 6 / 16)
    assert re.search(r'processes 1 x images 6 x accumulated 1 = 6, so 0\.02 x 6 / 16 = 0\.0075', log)


def test_training_leaves_checkpoints_and_figures(trained):
    _, work_dir = trained
    assert (work_dir / 'epoch_1.pth').exists()
    checkpoint = torch.load(work_dir / 'epoch_3.pth', weights_only=True)
    assert {'state_dict', 'optimizer', 'param_schedulers', 'meta'} <= set(checkpoint)
    last = [r for r in scalars(work_dir) if 'coco/bbox_mAP' in r][-1]
    assert all(f'coco/{name}' in last for name in FIGURES)
    assert list(work_dir.glob('*/vis_data/events.out.tfevents*'))


def test_test_command(trained, coco_root, small, tmp_path):
    _, work_dir = trained
    out = tmp_path / 'results.json'
    options = [o for o in small if o.startswith(('model', 'test', 'val'))]
    done = run_tool(
        'test', CONFIG, work_dir / 'epoch_3.pth', '--work-dir', tmp_path, '--out', out,
        '--show-dir', tmp_path / 'shown', '--cfg-options', *options, root=coco_root.root,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert all(name in output for name in FIGURES)
    for record in json.loads(out.read_text()):
        assert {'image_id', 'category_id', 'bbox', 'score'} <= set(record)
    pictures = list((tmp_path / 'shown').rglob('*.jpg')) + list((tmp_path / 'shown').rglob('*.png'))
    assert len(pictures) == 8


def test_resume_continues(trained, coco_root, small):
    _, work_dir = trained
    done = run_tool(
        'train', CONFIG, '--work-dir', work_dir, '--resume', '--cfg-options', 'train_dataloader.batch_size=6',
        *(o for o in small if 'max_epochs' not in o), 'train_cfg.max_epochs=4', root=coco_root.root,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = [r for r in scalars(work_dir) if 'loss' in r]
    assert [r['iter'] for r in records][-2:] == [7, 8]
    assert records[-1]['lr'] == pytest.approx(0.0075)
    assert (work_dir / 'epoch_4.pth').exists()
