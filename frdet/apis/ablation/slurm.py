"""Submitting the runs of a study to Slurm as a job array, by submitit."""

import contextlib
import io
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from frdet.apis.ablation.running import start, train_command
from frdet.apis.ablation.study import Job
from frdet.config import load_config, parse_overrides
from frdet.config.values import Declared, found, mismatch
from frdet.errors import ConfigError, did_you_mean

#: How often a job is requeued at its time limit: each time the training is further.
REQUEUES = 100
#: Minutes after which a job without a time limit of ours counts as one that was not preempted, but timed out.
ENDLESS = 10**9
#: Seconds for which a job waits for Slurm after SIGTERM.
LINGER = 300
#: Slurm may send the signal for submitit to all processes of a job, and it would end the training without saving.
WITHOUT_SIGNAL = ('sh', '-c', 'trap \'\' USR2; exec "$@"', 'sh')
#: Parameters of submitit that would train a run in several processes, or that are given in another way.
REFUSED = {'nodes', 'tasks_per_node', 'slurm_nodes', 'slurm_ntasks_per_node', 'slurm_partition', 'slurm_time'}


class Training:
    """Trains a run in a job of submitit. The result is the exit code of the training.

    A job whose run is finished, or trained by another process, ends at once with 0. So a study may be submitted twice.

    Before the time limit, and where Slurm preempts the job, submitit calls ``checkpoint`` and requeues the job. The
    training saves a checkpoint, from which the requeued job goes on.
    """

    def __init__(self, job: Job, train: str | Path):
        self.job = job
        self.train = Path(train)
        self.process: Popen | None = None
        self.is_stopped = False

    def __call__(self) -> int:
        self.process = start(self.job, [*WITHOUT_SIGNAL, *train_command(self.job, self.train)])
        if self.process is None:
            print(f'{self.job.name} is finished, or another process trains it')
            return 0
        print(f'Training {self.job.name}: what it prints is in {self.job.output}', flush=True)
        # Of a job that is cancelled or preempted. submitit heeds only SIGUSR2, which not every cluster sends then.
        before = signal.signal(signal.SIGTERM, lambda number, frame: self.stop())
        try:
            code = self.process.wait()
            if self.is_stopped:  # Slurm may requeue the job now; a job that had ended would not be requeued
                time.sleep(LINGER)
            return code
        finally:
            self.stop()
            signal.signal(signal.SIGTERM, before)

    def stop(self) -> None:
        """Let the training save a checkpoint and end. It is told once: a second signal would end it without saving."""
        if not self.is_stopped and self.process is not None:
            self.is_stopped = True
            self.process.terminate()

    def checkpoint(self) -> Any:
        """Stop the training and return what the requeued job does."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        if self.process is not None:
            with contextlib.suppress(ChildProcessError):  # it has ended before
                # Not `wait` of the process: a signal interrupts that very call, which would then wait for itself.
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Training(self.job, self.train))


def submit(jobs: Iterable[Job], train: str | Path, partition: str, options: Sequence[str] = ()) -> list[str]:
    """Submit a job array that trains the runs that are not finished, each in one process with one GPU.

    Args:
        train: the path of tools/train.py.
        partition: of Slurm.
        options: further parameters of submitit as ``KEY=VALUE``, such as ``timeout_min=600``, ``slurm_account=vision``
            or ``gpus_per_node=0``. Without ``timeout_min`` the partition limits the time.

    Returns:
        The ids of Slurm's jobs.

    Raises:
        ConfigError: submitit or Slurm is missing, an option is wrong, or Slurm refuses the job array.
    """
    left = [job for job in jobs if not job.is_finished]
    submitit, given = import_submitit(), check_options(options)
    if not left:
        return []
    work_dir = left[0].work_dir.parents[1]
    # Without --requeue, a cluster may lose a job whose machine fails.
    extra = {'requeue': True, **given.pop('slurm_additional_parameters', {})}
    defaults = dict(name=work_dir.name, tasks_per_node=1, cpus_per_task=_cpus(left), gpus_per_node=_gpus(given))
    parameters = defaults | given | dict(slurm_partition=partition, slurm_additional_parameters=extra)
    parameters['gpus_per_node'] = parameters['gpus_per_node'] or None  # not every cluster knows --gpus-per-node=0
    try:
        executor = submitit.AutoExecutor(work_dir / 'slurm', cluster='slurm', slurm_max_num_timeout=REQUEUES)
        executor.update_parameters(**parameters)
        if 'timeout_min' not in given:  # submitit's default is 5 minutes, and AutoExecutor leaves None out
            executor._executor.update_parameters(time=None)
        submissions = [_unlimited(submitit)(Training(job, Path(train).resolve())) for job in left]
        with contextlib.redirect_stderr(io.StringIO()):  # what sbatch prints there is in the error too
            return [one.job_id for one in executor._internal_process_submissions(submissions)]
    except RuntimeError as error:  # submitit's own errors derive from it
        if 'srun' in str(error) and 'detect' in str(error):
            raise ConfigError(
                'Slurm is not on this machine (no srun): start this on a login node of the cluster, or train without '
                'Slurm by --jobs N, or with another scheduler by --print-commands'
            ) from None
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ConfigError('Slurm refused the job array:\n' + '\n'.join(lines[-3:])) from None


def import_submitit() -> Any:
    """The package submitit.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import submitit
    except ImportError:
        raise ConfigError('Slurm needs the package submitit, which is missing: pip install submitit') from None
    return submitit


def check_options(options: Sequence[str]) -> dict[str, Any]:
    """Parameters of submitit from ``KEY=VALUE``.

    Raises:
        ConfigError: submitit is missing, or has no such parameter here, or a value has another type.
    """
    submitit = import_submitit()
    types = submitit.AutoExecutor._typed_parameters()
    slurm = {f'slurm_{name}' for name in submitit.SlurmExecutor._valid_parameters()}
    known = {*types, *slurm} - REFUSED
    for option in options:
        key, equals, _ = option.partition('=')
        if not equals:
            raise ConfigError(f'--slurm-options {option}: expected KEY=VALUE, as in timeout_min=600')
        if key not in known:
            hint = did_you_mean(key, known) or f'it takes {", ".join(sorted(set(types) & known))}, slurm_account, ...'
            raise ConfigError(f'--slurm-options {key}: no parameter that submitit has here: {hint}')
    given = parse_overrides(options)
    for key, value in given.items():
        if expected := mismatch(value, Declared(types.get(key, Any))):
            raise ConfigError(f'--slurm-options {key}: {found(value)}, expected {expected}')
    return given


def _gpus(given: Mapping[str, Any]) -> int:
    """One GPU, unless an option asks for GPUs in another way."""
    return int(not any('gpu' in key or key == 'slurm_gres' for key in given))


def _cpus(jobs: Iterable[Job]) -> int:
    """A core for each worker of the data loader, and one for the training."""
    loaders = [load_config(config).get('train_dataloader') or {} for config in {job.config for job in jobs}]
    return 1 + max(loader.get('num_workers', 0) for loader in loaders)


def _unlimited(submitit: Any) -> Any:
    """The class of what a job does. submitit would calculate with the time limit, which is None here."""

    class DelayedSubmission(submitit.helpers.DelayedSubmission):  # submitit knows it by this name
        def set_timeout(self, minutes: int | None, count: int) -> None:
            super().set_timeout(minutes or ENDLESS, count)

    return DelayedSubmission
