"""Training the runs of a study in processes of this machine, each run once, whatever is killed in between."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

import torch

from frdet.apis.ablation.study import Job
from frdet.errors import ConfigError, UserError

POLL = 0.5  # seconds
ENDING = (signal.SIGTERM, signal.SIGHUP)


def train_command(job: Job, train: str | Path) -> list[str]:
    """The words that train a run with tools/train.py at ``train``, or go on with it."""
    words = [job.config, '--work-dir', job.work_dir, '--seed', job.seed, '--resume']
    return [sys.executable, str(train), *map(str, words)]


def start(job: Job, command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen | None:
    """Start to train a run; None if it is finished, or if another process trains it.

    The started process inherits the lock of the run. So the lock is free exactly when that process has ended, also if
    this one was killed before.
    """
    job.lock.parent.mkdir(parents=True, exist_ok=True)
    with open(job.lock, 'a') as lock:
        if not _locked(lock):
            return None
        if job.is_finished:  # perhaps just now, by another process
            return None
        with open(job.output, 'ab') as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                pass_fds=(lock.fileno(),),
                start_new_session=True,  # Ctrl-C comes from `ending` alone: a second signal would end it without saving
            )


def _locked(file: IO) -> bool:
    """Lock a file, unless another process does. Looking at the state of a run locks it for an instant, too."""
    for _ in range(2):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError as error:
            raise UserError(
                f'{file.name} cannot be locked ({error.strerror}): the file system has no flock. Give a --work-dir on '
                'another one, or run the commands of --print-commands without flock'
            ) from error
        else:
            return True
    return False


def environments(count: int) -> list[dict[str, str]]:
    """What ``count`` processes at once get: a GPU each if there is one for it, else its share of the cores.

    Raises:
        ConfigError: ``count`` is not positive.
    """
    if count < 1:
        raise ConfigError(f'--jobs {count}: expected at least 1')
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    gpus = named.split(',') if named else [str(index) for index in range(torch.cuda.device_count())]
    if torch.cuda.device_count():
        return [{'CUDA_VISIBLE_DEVICES': gpus[slot % len(gpus)]} for slot in range(count)]
    cores = len(os.sched_getaffinity(0))
    share = {} if count == 1 or 'OMP_NUM_THREADS' in os.environ else {'OMP_NUM_THREADS': str(max(1, cores // count))}
    return [share] * count


def default_jobs() -> int:
    """Processes at once: one for each visible GPU, one without any."""
    return max(1, torch.cuda.device_count())


@contextlib.contextmanager
def ending(processes: Mapping[int, subprocess.Popen]) -> Iterator[None]:
    """After Ctrl-C, SIGTERM, SIGHUP or an error let the ``processes`` save checkpoints, and wait for their ends."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in ENDING}
    try:
        yield
    except KeyboardInterrupt:
        print('\nEach training saves a checkpoint and ends. The same command goes on', file=sys.stderr, flush=True)
        raise
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def train_jobs(
    jobs: Iterable[Job], train: str | Path, *, count: int, update: Callable[[], None] = lambda: None
) -> dict[Job, int]:
    """Train the runs that are not finished, ``count`` at once, and wait for those that other processes train.

    Args:
        jobs: the runs, the first to be trained first.
        train: the path of tools/train.py.
        update: is called about twice a second.

    Returns:
        The exit code of each run that ended with an error. Such a run is not tried again by this call.
    """
    slots = environments(count)
    running: dict[int, subprocess.Popen] = {}
    trained: dict[int, Job] = {}
    failed: dict[Job, int] = {}
    waiting = list(jobs)
    with ending(running):
        while waiting or running:
            for slot in [slot for slot, process in running.items() if process.poll() is not None]:
                if code := running.pop(slot).returncode:
                    failed[trained[slot]] = code
            for job in list(waiting):
                free = [slot for slot in range(count) if slot not in running]
                if job.is_finished:
                    waiting.remove(job)
                elif free and (process := start(job, train_command(job, train), slots[free[0]])) is not None:
                    running[free[0]], trained[free[0]] = process, job
                    waiting.remove(job)
            update()
            time.sleep(POLL if waiting or running else 0)
    return failed
