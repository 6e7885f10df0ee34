"""The components and the config of docs/plugins.md train as a user would run them."""

import os
import subprocess
from pathlib import Path

from tests import warm

ROOT = Path(__file__).resolve().parents[1]


def test_example_of_the_docs_trains(tmp_path):
    shapes = tmp_path / 'shapes'
    draw = [warm.python(), '-m', 'frdet.datasets.shapes', str(shapes), '--train', '12', '--val', '4']
    subprocess.run(draw, check=True, cwd=ROOT, timeout=120)
    grey = "dict(type='RandomGrey', prob=0.5)"
    config = tmp_path / 'with_transform.py'
    config.write_text(
        f"_base_ = '{ROOT}/docs/examples/my_config.py'\n"
        f"pipeline = [dict(type='LoadImage'), {grey}, dict(type='PackDetInputs')]\n"
        'train_dataloader = dict(dataset=dict(pipeline=pipeline))\n'
    )
    done = subprocess.run(
        [warm.python(), 'tools/train.py', str(config), '--work-dir', str(tmp_path / 'work'), '--cfg-options',
         f'train_dataloader.dataset.data_root={shapes}', f'val_dataloader.dataset.data_root={shapes}',
         f'val_evaluator.ann_file={shapes}/annotations/instances_val2017.json',
         'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0', 'train_dataloader.batch_size=4',
         'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1'],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([f'{ROOT}/docs/examples', os.environ.get('PYTHONPATH', '')])},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert 'weight_norm' in output  # the hook's figure is logged
    assert (tmp_path / 'work' / 'epoch_1.pth').exists()
