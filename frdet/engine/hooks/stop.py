"""Stopping a run on a signal, with a checkpoint to resume from."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from frdet.checkpoints.hooks import CheckpointHook

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
#: Exit code of a run that was stopped and can be resumed: EX_TEMPFAIL of sysexits.h.
REQUEUE = 75
#: Seconds after a signal in which a second one is ignored: a launcher repeats signals that its processes got already.
SAME = 1.0


class StopHook(Hook):
    """Saves a checkpoint at the end of the iteration in which any process got a signal, and ends the run.

    After SIGTERM and SIGUSR1 the exit code is 75. SIGINT, which Ctrl-C sends, raises KeyboardInterrupt after the
    checkpoint is saved, or at once before the first iteration. A second signal ends the process at once. The workers of
    data loaders ignore the signals.

    SIGINT stays ignored if it was ignored at the start, as in a shell's background jobs. The caller's own handler is
    kept too.
    """

    priority = 'HIGHEST'  # before hooks that count the next iteration

    def __init__(self) -> None:
        self.since: float | None = None
        self.number = 0  # of the signal; 0 before any signal
        self._before: dict[int, Any] = {}  # the former handlers
        self._group: Any = None

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
        loaders = [runner.train_dataloader] + ([runner.val_dataloader] if runner.val_loop is not None else [])
        for loader in loaders:
            loader.worker_init_fn = partial(_init_worker, loader.worker_init_fn)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Stop between two steps of the optimiser, because checkpoints do not hold accumulated gradients."""
        if self._before and signal.SIGINT not in self._before:  # the first iteration, in the main thread
            self._before[signal.SIGINT] = handler = signal.getsignal(signal.SIGINT)
            if handler == signal.default_int_handler:
                signal.signal(signal.SIGINT, self._note)
        optim = runner.optim_wrapper
        if (isinstance(optim, OptimWrapperDict) or optim.should_update()) and (number := self._agreed()):
            self._leave(runner, number)

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Stop within a validation, which is repeated on resuming."""
        if number := self._agreed():
            runner.message_hub.update_info('validation_cut', True)
            self._leave(runner, number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.since is None:
            self.since, self.number = now, number
            if number == signal.SIGINT and is_main_process():
                # ``print`` is not safe in a handler.
                os.write(2, b'\nThis iteration ends and is saved; Ctrl-C again ends at once\n')
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
        saved = f'Saved {saver.save_position(runner)}; go on with --resume' if saver else 'No CheckpointHook saves it'
        runner.logger.warning(f'Stopped by a signal after iteration {runner.iter}. {saved}')
        runner.visualizer.close()
        barrier()  # the launcher ends the other processes when one ends, and the first one may still be saving
        if number == signal.SIGINT:
            raise KeyboardInterrupt
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
