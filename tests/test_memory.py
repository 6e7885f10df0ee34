"""Training takes no more memory the longer it runs, and leaves no process and no shared memory behind."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from frdet.registry import DATASETS, HOOKS
from tests import warm
from tests.engine import toy
from tests.signals import heed_ctrl_c
from tests.tools.test_train_and_test import run_tool


@DATASETS.register_module(force=True)
class HeavyDataset(toy.ToyDataset):
    """A quarter of a megabyte beside each image: a batch that is kept is seen."""

    def prepare_data(self, idx):
        item = super().prepare_data(idx)
        item['data_samples'].set_field(torch.ones(65_536), 'payload')
        return item


@HOOKS.register_module(force=True)
class KeepingHook(Hook):
    """What must not be: it keeps every batch."""

    def __init__(self):
        self.kept = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.kept.append(data_batch)


def write(path, **changes):
    cfg = toy.config('', **{'default_hooks.checkpoint.save_best': None, **changes})
    cfg.pop('work_dir')
    cfg.train_dataloader.dataset = dict(type='HeavyDataset', length=30)
    cfg.custom_imports = dict(imports=['tests.test_memory'])
    cfg.dump(str(path))
    return path


@pytest.mark.parametrize('hooks', [[], [dict(type='KeepingHook')]])
def test_memory_does_not_grow(tmp_path, hooks):
    """200 iterations of three images: kept, 150 of them would be 113 MiB."""
    path = write(tmp_path / 'a.py', custom_hooks=hooks)
    done = run_tool(
        'benchmark', 'leak', path, '--iterations', 200, '--warm-up', 50, '--limit', 20,
        root=tmp_path, PYTHONPATH=str(toy.ROOT),
    )  # fmt: skip
    grown = float(re.search(r'grown by (-?[\d.]+) MiB', done.stdout)[1])
    assert done.returncode == bool(hooks), done.stdout + done.stderr
    assert (100 < grown < 140) if hooks else grown < 20


def running(log):
    """Ids of the living processes that may write to ``log``: a command and all that it has started."""
    found = set()
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            alive = folder.joinpath('stat').read_text().rpartition(')')[2].split()[0] != 'Z'
            if alive and folder.joinpath('fd', '1').samefile(log):
                found.add(int(folder.name))
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


@pytest.mark.parametrize(
    ('stop', 'persistent'), [(None, True), (None, False), (signal.SIGINT, True), (signal.SIGKILL, True)]
)
def test_nothing_is_left_behind(tmp_path, stop, persistent):
    """Three epochs with two workers; or many, ended from outside. Workers see by themselves that they are alone."""
    loader = {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': persistent}
    path = write(tmp_path / 'a.py', **loader, **{'train_cfg.max_epochs': 3 if stop is None else 1000})
    command = [warm.python(), 'tools/train.py', path, '--no-validate', '--work-dir', tmp_path / 'work']
    log = tmp_path / 'log'
    with open(log, 'w') as out:
        env = {**os.environ, 'PYTHONPATH': str(toy.ROOT)}
        run = subprocess.Popen(command, cwd=toy.ROOT, env=env, stdout=out, stderr=out, preexec_fn=heed_ctrl_c)
    seen: set[int] = set()
    deadline = time.monotonic() + 90
    while run.poll() is None:
        assert time.monotonic() < deadline, log.read_text()
        seen |= running(log)
        if stop is not None and (tmp_path / 'work' / 'epoch_2.pth').exists():
            run.send_signal(stop)
            stop = None
        time.sleep(0.2)
    assert len(seen) >= 4, 'the executable, the process and its two workers'
    while running(log):
        assert time.monotonic() < deadline, 'workers outlive the run'
        time.sleep(0.2)
    assert not [f.name for f in Path('/dev/shm').iterdir() if any(str(pid) in f.name.split('_') for pid in seen)]
