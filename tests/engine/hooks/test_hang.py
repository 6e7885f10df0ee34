"""One of two processes fails: both end soon, and the words or stacks of the one are shown."""

import os
import re
import signal
import time

import pytest
from torch import nn

from frdet.engine.hooks import HangHook
from frdet.registry import DETECTORS
from tests.apis.test_launch import launched, write_config
from tests.engine import toy


def sleep_for_ever():
    while True:
        time.sleep(1)


def fail():
    raise RuntimeError('the disk is on fire')


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@DETECTORS.register_module(force=True)
class FailingDetector(toy.ToyDetector):
    """Fails in the third step of the second process."""

    def __init__(self, *, how):
        super().__init__()
        self.how = how

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss' and self.calls == 2 and os.environ.get('RANK') == '1':
            {'hang': sleep_for_ever, 'raise': fail, 'die': die}[self.how]()
        return super().forward(inputs, data_samples, mode)


@pytest.mark.parametrize(
    ('how', 'shown'),
    [
        ('hang', r'error \(process 1\): no progress for \d+ s, after 2 iterations(.|\n)* in sleep_for_ever\n'),
        ('raise', r'Traceback(.|\n)* in fail\n(.|\n)*RuntimeError: the disk is on fire'),
        ('die', r'Signal 9 \(SIGKILL\)'),
    ],
)
def test_one_ends_both(tmp_path, how, shown):
    changes = {'default_hooks.hang.timeout': 5, 'default_hooks.checkpoint.save_best': None}
    config = write_config(tmp_path / 'toy.py', **changes)
    text = config.read_text().replace("type='ToyDetector'", f"type='FailingDetector', how='{how}'")
    config.write_text(text.replace("'tests.engine.toy'", "'tests.engine.hooks.test_hang'"))
    started = time.monotonic()
    done = launched('dist_train.sh', config, 2, '--work-dir', tmp_path / 'work')
    assert done.returncode != 0
    assert time.monotonic() - started < 60
    assert re.search(shown, done.stderr), done.stderr


def test_one_process_is_left_alone(tmp_path):
    """A debugger may stop it for as long as it takes."""
    run = toy.runner(tmp_path, **{'train_cfg.max_epochs': 1, 'default_hooks.hang.timeout': 0.2})
    run.model.layer.append(Pause())
    run.train()
    assert run.iter == 4


class Pause(nn.Module):
    def forward(self, x):
        time.sleep(0.5)
        return x


def test_the_watch_ends_with_the_run(tmp_path):
    hook = HangHook(timeout=1)
    hook.after_run(None)
    hook._watch(None)  # returns
