"""Ending all processes of a run if one of them makes no more progress."""

import faulthandler
import os
import sys
import tempfile
import threading
import time
from typing import Any

from mmengine.dist import get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.registry import HOOKS

GRACE = 3  # seconds; the launcher kills the other processes when one ends, and they must print their stacks first


@HOOKS.register_module()
class HangHook(Hook):
    """Ends a run of several processes if one of them makes no progress, and prints the stacks of each process.

    If a process hangs, the others wait for it in their next exchange. PyTorch ends this wait after
    ``env_cfg.dist_cfg.timeout`` (30 minutes by default) without naming a cause. Here a thread of each process watches
    its own iterations. A run of one process is not watched.

    Args:
        timeout: the longest time, in seconds, between two iterations of training, validation or testing. Computing the
            metrics is part of it: one process computes them while the others wait.
    """

    def __init__(self, *, timeout: float = 600):
        self.timeout = timeout
        self._last = time.monotonic()
        self._done = threading.Event()

    def before_run(self, runner: Runner) -> None:
        if is_distributed():
            self._beat()
            threading.Thread(target=self._watch, args=(runner,), name='HangHook', daemon=True).start()

    def after_run(self, runner: Runner) -> None:
        self._done.set()

    def _beat(self, *args: Any, **kwargs: Any) -> None:
        self._last = time.monotonic()

    before_train_iter = after_train_iter = before_val_iter = after_val_iter = _beat
    before_test_iter = after_test_iter = after_val_epoch = after_test_epoch = _beat

    def _watch(self, runner: Runner) -> None:
        while not self._done.wait(min(self.timeout / 10, 5)):
            if (silent := time.monotonic() - self._last) <= self.timeout:
                continue
            with tempfile.TemporaryFile('w+') as stacks:
                faulthandler.dump_traceback(stacks)
                stacks.seek(0)
                # Written at once, because other processes write at the same moment.
                sys.stderr.write(
                    f'error (process {get_rank()}): no progress for {silent:.0f} s, after '
                    f'{runner.message_hub.get_info("iter", 0)} iterations: this or another process hangs, and all are '
                    'ended. If it was only slow, raise default_hooks.hang.timeout. Stacks of this process:\n'
                    f'{stacks.read()}'
                )
            sys.stderr.flush()
            time.sleep(GRACE)
            os._exit(1)
