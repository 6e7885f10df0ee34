"""A detector trained by the tool, stopped, killed and resumed, comes out as one that was trained straight."""

import os
import re
import signal
import subprocess

import pytest
import torch

from frdet.datasets import write_shapes
from tests import warm
from tests.tools.test_train_and_test import ROOT, scalars
from tests.weights import NARROW_WORDS

CONFIG = 'configs/quickstart/r18_fpn_shapes.py'
ITERATIONS = 8  # 2 epochs of 16 images, 4 a batch


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    shapes = write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=16, num_val=2)
    return [
        *NARROW_WORDS,
        *(f'{split}_dataloader.dataset.data_root={shapes}' for split in ('train', 'val', 'test')),
        *(f'{split}_evaluator.ann_file={shapes}/annotations/instances_val2017.json' for split in ('val', 'test')),
        'train_cfg.max_epochs=2',
        'param_scheduler.0.end=6',
        'param_scheduler.1.milestones=[1]',
        'log_processor.window_size=1',
        'default_hooks.logger.interval=1',
        'default_hooks.report=None',
        'default_hooks.checkpoint.by_epoch=False',
        'default_hooks.checkpoint.interval=1',
    ]


def train(work_dir, options, *args, until=None, number=None):
    """Exit code and output of the tool; ``number`` is sent to it once it has written ``until``."""
    command = [warm.python(), 'tools/train.py', CONFIG, '--work-dir', work_dir, '--seed', '3', '--no-validate', *args]
    process = subprocess.Popen(
        [*map(str, command), '--cfg-options', *options], cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
        lines.append(line)
        if until and until in line:
            process.send_signal(number)
    return process.wait(timeout=60), ''.join(lines)


def test_stopped_killed_and_resumed(options, tmp_path):
    straight, parts = tmp_path / 'straight', tmp_path / 'parts'
    code, output = train(straight, [*options, 'train_dataloader.num_workers=0'])
    assert code == 0, output
    code, output = train(parts, options, until='[1][2/4]', number=signal.SIGTERM)
    assert code == 75, output
    stop = int(re.search(r'Stopped by a signal after iteration (\d+)', output)[1])
    assert 2 <= stop < ITERATIONS - 2
    saving = f'checkpoint at {stop + 2} iterations'
    code, output = train(parts, options, '--resume', until=saving, number=signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert f'goes on after iteration {stop} of {ITERATIONS}\n' in output
    code, output = train(parts, options, '--resume')
    assert code == 0, output
    assert int(re.search(r'goes on after iteration (\d+)', output)[1]) >= stop + 1  # the next was being saved

    expected = {r['iter']: r['loss'] for r in scalars(straight) if 'loss' in r}
    records = [(r['iter'], r['loss']) for r in scalars(parts) if 'loss' in r]
    assert sorted(expected) == list(range(1, ITERATIONS + 1)) == sorted({i for i, _ in records})
    assert all(loss == expected[i] for i, loss in records)
    ends = [torch.load(folder / f'iter_{ITERATIONS}.pth', weights_only=True) for folder in (straight, parts)]
    assert all(torch.equal(value, ends[1]['state_dict'][name]) for name, value in ends[0]['state_dict'].items())
    momenta = [[s['momentum_buffer'] for s in end['optimizer']['state'].values()] for end in ends]
    assert all(map(torch.equal, *momenta))
