"""Ending all processes of a run: on a signal, with a checkpoint to resume from, or if one of them hangs."""

import contextlib
import faulthandler
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import torch
from mmengine.dist import barrier, get_rank, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from frdet.checkpoints.hooks import CheckpointHook
from frdet.errors import Interrupted
from frdet.registry import HOOKS

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
#: Exit code of a run that was stopped and can be resumed: EX_TEMPFAIL of sysexits.h.
REQUEUE = 75
#: Seconds after a signal in which a second one is ignored: a launcher repeats signals that its processes got already.
SAME = 1.0
#: Seconds for all processes to print their stacks: the launcher kills the others when one ends.
GRACE = 3


class StopHook(Hook):
    """Saves a checkpoint at the end of the iteration in which any process got a signal, and ends the run.

    After SIGTERM and SIGUSR1 the exit code is 75. SIGINT, which Ctrl-C sends, raises ``Interrupted`` after the
    checkpoint is saved; before the first iteration of the process nothing is saved. A second signal ends the process
    at once. The workers of data loaders ignore the signals.

    SIGINT stays ignored if it was ignored at the start, as in a shell's background jobs. The caller's own handler is
    kept too.
    """

    priority = 'HIGHEST'  # before hooks that count the next iteration

    def __init__(self) -> None:
        self.since: float | None = None
        self.number = 0  # of the signal; 0 before any signal
        self._before: dict[int, Any] = {}  # the former handlers
        self._group: Any = None
        self._process = os.getpid()
        self._first: int | None = None  # the iteration with which this process begins, once its data are ready

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Catch the signals, which only the main thread can do."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in self._before.items():
                if signal.getsignal(number) == self._note:  # else the run was stopped and ignores them
                    signal.signal(number, handler)
            self._before = {}

    def before_train(self, runner: Runner) -> None:
        """Make the workers of the data loaders, which are not started yet, ignore the signals."""
        if torch.distributed.is_initialized():
            self._group = torch.distributed.new_group(backend='gloo')  # to agree without waiting for a GPU
        self._first = runner.iter
        # Not earlier: while data and weights are prepared, which takes long, Ctrl-C ends the process at once. And not
        # later: an error that is raised while a worker starts would get lost.
        if self._before and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
        loaders = [runner.train_dataloader] + ([runner.val_dataloader] if runner.val_loop is not None else [])
        for loader in loaders:
            loader.worker_init_fn = partial(_init_worker, loader.worker_init_fn)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Stop between two steps of the optimiser, because checkpoints do not hold accumulated gradients."""
        optim = runner.optim_wrapper
        if (isinstance(optim, OptimWrapperDict) or optim.should_update()) and (number := self._agreed()):
            self._leave(runner, number)

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Stop within a validation, which is repeated on resuming."""
        if number := self._agreed():
            self._leave(runner, number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if os.getpid() != self._process:  # a worker that is just starting
            return
        if self.since is None:
            self.since, self.number = now, number
            if number == signal.SIGINT and is_main_process():
                # ``print`` is not safe in a handler.
                os.write(2, b'\nThis iteration ends, then the run stops; Ctrl-C again ends at once, without saving\n')
        elif now - self.since > SAME:
            if number == signal.SIGINT:
                signal.default_int_handler(number, frame)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _agreed(self) -> int:
        """Return the signal of any process, or 0. All stop after the same iteration; else some would wait forever."""
        if self._group is None:
            return self.number
        flag = torch.tensor(self.number)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return int(flag)

    def _leave(self, runner: Runner, number: int) -> None:
        saver = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if number == signal.SIGINT and runner.iter == self._first:
            raise Interrupted('Stopped before the first iteration, nothing to save yet')
        saved = f'Saved {saver.save_position(runner)}; go on with --resume' if saver else 'No CheckpointHook saves it'
        runner.logger.warning(f'Stopped by a signal after iteration {runner.iter}. {saved}')
        runner.visualizer.close()
        barrier()  # the launcher ends the other processes when one ends, and the first one may still be saving
        if number == signal.SIGINT:
            raise Interrupted(f'Stopped after iteration {runner.iter}', saver.last_ckpt if saver else None)
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        sys.exit(REQUEUE)


def _init_worker(inner: Callable[[int], None] | None, worker_id: int) -> None:
    """Start a worker that survives the signals, because the last iteration needs its batches.

    Only a signal of its parent ends it, as ``DataLoader`` sends it to a worker that hangs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends its workers
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for_parent, daemon=True).start()
    if inner is not None:
        inner(worker_id)


def _wait_for_parent() -> None:
    parent = os.getppid()
    while signal.sigwaitinfo(SIGNALS).si_pid != parent:
        pass
    os._exit(0)


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
