"""Jobs of submitit, without a cluster: its local executor, and programs that stand in for Slurm's."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import submitit
from submitit.core import submission
from submitit.core.utils import DelayedSubmission

from frdet.apis.ablation import slurm
from frdet.apis.ablation.study import Job
from frdet.errors import ConfigError
from tests import warm
from tests.engine.toy import ROOT

#: Counts how often it is started; seed 1 fails, seed 2 trains until SIGTERM, then saves and ends as a training does.
TRAIN = """
import json, pathlib, signal, sys, time
folder, seed = pathlib.Path(sys.argv[3]), sys.argv[5]
assert sys.argv[2:] == ['--work-dir', str(folder), '--seed', seed, '--resume']
folder.mkdir(exist_ok=True)
def save(number, frame):
    (folder / 'saved').write_text('')
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
assert seed != '2' or signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN  # Slurm may send it to all processes
print('begun', flush=True)
if seed == '1':
    sys.exit('the data are missing')
end = time.monotonic() + 10  # not without end where the signal does not come
while seed == '2' and not (folder / 'saved').exists() and time.monotonic() < end:
    time.sleep(0.01)
(folder / 'finished.json').write_text('{}')
"""


@pytest.fixture
def train(tmp_path):
    path = tmp_path / 'train.py'
    path.write_text(TRAIN)
    return path


@pytest.fixture
def study(tmp_path):
    (tmp_path / 'study/base').mkdir(parents=True)
    (tmp_path / 'study/base/config.py').write_text('train_dataloader = dict(num_workers=3)')
    return tmp_path / 'study'


def jobs(study, *seeds):
    return [Job('base', seed, study / f'base/seed_{seed}') for seed in seeds]


def begun(job):
    return job.output.read_text().count('begun\n')


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Programs of Slurm that keep their input; the folder in which they keep it."""
    folder = tmp_path / 'cluster'
    folder.mkdir()
    programs = {
        'sbatch': f'cp "$1" {folder}/script; echo Submitted batch job 42',
        'srun': 'exit 1',
        'scontrol': f'echo "$@" >> {folder}/requeued',
    }
    for name, body in programs.items():
        (folder / name).write_text(f'#!/bin/sh\n{body}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')
    return folder


def script(cluster):
    lines = (cluster / 'script').read_text().splitlines()
    flags = [line.removeprefix('#SBATCH --').partition('=') for line in lines if line.startswith('#SBATCH')]
    return {name: value for name, _, value in flags}, [line for line in lines if line and line[0] != '#']


def test_local_jobs_train(study, train, monkeypatch):
    """The jobs are processes that submitit starts: one run trains, one fails."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    runs = jobs(study, 0, 1)
    executor = submitit.LocalExecutor(study / 'slurm', python=str(warm.python()))
    submitted = executor.submit_array([slurm.Training(job, train) for job in runs])
    assert [job.result() for job in submitted] == [0, 1]
    assert [job.state for job in runs] == ['finished', 'stopped']
    assert runs[1].last_words() == ['begun', 'the data are missing']
    assert f'Training base/seed_0: what it prints is in {runs[0].output}' in submitted[0].stdout()


def test_the_script_that_slurm_gets(study, train, cluster):
    runs = jobs(study, 0, 1, 2, 3)
    runs[1].work_dir.mkdir()
    (runs[1].work_dir / 'finished.json').touch()
    options = ['timeout_min=90', 'slurm_account=vision', 'slurm_array_parallelism=2', 'mem_gb=24']
    assert slurm.submit(runs, train, 'gpu', options) == ['42_0', '42_1', '42_2']
    flags, commands = script(cluster)
    log = f'{study}/slurm/%A_%a_0_log'
    assert flags == {
        'job-name': 'study',
        'partition': 'gpu',
        'account': 'vision',
        'array': '0-2%2',  # three jobs, two at once
        'nodes': '1',
        'ntasks-per-node': '1',
        'gpus-per-node': '1',
        'cpus-per-task': '4',  # three workers and the training
        'mem': '24GB',
        'time': '90',  # minutes
        'signal': 'USR2@90',  # seconds before the limit, to the processes that srun started
        'requeue': '',
        'open-mode': 'append',  # a requeued job writes into the same log
        'output': f'{log}.out',
        'error': f'{log}.err',
        'wckey': 'submitit',
    }
    assert commands[0] == 'export SUBMITIT_EXECUTOR=slurm'
    assert re.fullmatch(rf'srun .*{re.escape(sys.executable)} -u -m submitit.core._submit {study}/slurm', commands[1])
    waiting = [DelayedSubmission.load(study / f'slurm/42_{k}_submitted.pkl').function.job for k in range(3)]
    assert waiting == [runs[0], *runs[2:]]


def test_no_time_limit_and_no_gpu_of_ours(study, train, cluster):
    slurm.submit(jobs(study, 0, 2), train, 'cpu', ['gpus_per_node=0', 'cpus_per_task=8'])
    flags, _ = script(cluster)
    assert not {'time', 'gpus-per-node'} & set(flags) and flags['cpus-per-task'] == '8'
    slurm.submit(
        jobs(study, 0, 2), train, 'gpu', ['slurm_gres=gpu:a100:1', "slurm_additional_parameters=dict(qos='low')"]
    )
    flags, _ = script(cluster)
    assert flags['gres'] == 'gpu:a100:1' and 'gpus-per-node' not in flags
    assert flags['qos'] == 'low' and 'requeue' in flags


def test_nothing_is_left(study, train, cluster):
    run = jobs(study, 0)[0]
    run.work_dir.mkdir()
    (run.work_dir / 'finished.json').touch()
    assert slurm.submit([run], train, 'gpu') == []
    assert not (cluster / 'script').exists()


def in_a_job(study, number=None, before=lambda: None):
    """What Slurm starts, in this process. It gets the signal ``number`` once the training has begun."""
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)}

    def send():
        deadline = time.monotonic() + 20
        while not before() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    if number is not None:
        thread.start()
    try:
        submission.process_job(study / 'slurm')
    finally:
        if number is not None:
            thread.join()
        for each, handler in handlers.items():
            signal.signal(each, handler)


@pytest.fixture
def job_42(monkeypatch):
    monkeypatch.setenv('SUBMITIT_EXECUTOR', 'slurm')
    monkeypatch.setenv('SLURM_JOB_ID', '42')
    monkeypatch.delenv('SUBMITIT_FOLDER', raising=False)


@pytest.mark.parametrize('options', [[], ['timeout_min=60']])
def test_a_job_is_requeued_and_goes_on(study, train, cluster, job_42, options):
    (run,) = jobs(study, 2)
    assert slurm.submit([run], train, 'gpu', options) == ['42']
    with pytest.raises(SystemExit):
        in_a_job(study, signal.SIGUSR2, lambda: run.output.is_file() and begun(run))
    assert (cluster / 'requeued').read_text() == 'requeue 42\n'
    assert (run.work_dir / 'saved').exists() and run.state == 'stopped'  # its lock is free
    in_a_job(study)  # the requeued job
    assert run.is_finished and begun(run) == 2
    in_a_job(study)  # another submission of the same study
    assert begun(run) == 2


def test_a_job_that_is_cancelled_saves(study, train, cluster, job_42, monkeypatch):
    monkeypatch.setattr(slurm, 'LINGER', 0)
    (run,) = jobs(study, 2)
    slurm.submit([run], train, 'gpu')
    in_a_job(study, signal.SIGTERM, lambda: run.output.is_file() and begun(run))
    assert (run.work_dir / 'saved').exists() and not run.is_finished
    assert not (cluster / 'requeued').exists()


def test_a_run_that_is_trained_elsewhere_is_left_alone(study, train, capsys):
    (run,) = jobs(study, 0)
    code = f'import fcntl; file = open({str(run.lock)!r}, "a"); fcntl.flock(file, 2); print(flush=True); input()'
    with subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert slurm.Training(run, train)() == 0
        other.communicate(b'\n')
    assert 'another process trains it' in capsys.readouterr().out
    assert not run.output.exists()
    assert slurm.Training(run, train)() == 0
    assert run.is_finished


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('timeout_min', '--slurm-options timeout_min: expected KEY=VALUE, as in timeout_min=600'),
        ('timout_min=5', '--slurm-options timout_min: .* did you mean timeout_min'),
        ('slurm_acount=x', 'did you mean slurm_account'),
        ('account=x', 'did you mean slurm_account'),
        ('nodes=2', '--slurm-options nodes: no parameter .* takes cpus_per_task, gpus_per_node, .*'),
        ('timeout_min=1h', r"--slurm-options timeout_min: found '1h' \(str\), expected int"),
    ],
)
def test_wrong_options(study, train, cluster, option, message):
    with pytest.raises(ConfigError, match=message):
        slurm.submit(jobs(study, 0), train, 'gpu', [option])


def test_without_slurm(study, train, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(ConfigError, match='Slurm is not on this machine'):
        slurm.submit(jobs(study, 0), train, 'gpu')


def test_slurm_refuses(study, train, cluster, capfd):
    (cluster / 'sbatch').write_text('#!/bin/sh\necho "sbatch: error: invalid partition specified: gpuu" >&2\nexit 1\n')
    with pytest.raises(ConfigError, match='Slurm refused the job array:\nsbatch: error: invalid partition .* gpuu'):
        slurm.submit(jobs(study, 0, 1), train, 'gpuu')
    assert capfd.readouterr().err == ''


def test_without_submitit(study, train, monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(ConfigError, match='pip install submitit'):
        slurm.submit(jobs(study, 0), train, 'gpu')
