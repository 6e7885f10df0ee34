"""Several processes, one of which does nothing more: all of them end, and say where they stood."""

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

GRACE = 3  # seconds: the launcher kills the others as soon as one has ended, and they have stacks to show, too


@HOOKS.register_module()
class HangHook(Hook):
    """Ends a run of several processes in which one makes no progress; the stacks of each are printed.

    A process that waits for ever makes the others wait for it in their next exchange, which PyTorch ends after
    ``env_cfg.dist_cfg.timeout`` (30 minutes if not given), without a word on what was waited for. Here a thread of each
    process watches its own iterations. A run of one process is left alone.

    Args:
        timeout: seconds from one iteration of training, validation or testing to the next. It has to hold the
            slowest thing between two: the figures of an evaluation, which one process computes while the others wait.
    """

    def __init__(self, *, timeout: float = 600):
        self.timeout = timeout
        self._last = time.monotonic()
        self._done = threading.Event()

    def before_run(self, runner: Runner) -> None:
        """Begin to watch."""
        if is_distributed():
            self._beat()
            threading.Thread(target=self._watch, args=(runner,), name='HangHook', daemon=True).start()

    def after_run(self, runner: Runner) -> None:
        """Watch no more."""
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
                # In one piece: other processes write at the same moment.
                sys.stderr.write(
                    f'error (process {get_rank()}): no progress for {silent:.0f} s, after '
                    f'{runner.message_hub.get_info("iter", 0)} iterations: this or another process hangs, and all are '
                    'ended. What is slow and no hang needs a larger default_hooks.hang.timeout. Stacks of this '
                    f'process:\n{stacks.read()}'
                )
            sys.stderr.flush()
            time.sleep(GRACE)
            os._exit(1)
