"""Each run is trained once, whatever is killed in between. The trainings are scripts that take a fifth of a second."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frdet.apis.ablation import running
from frdet.apis.ablation.study import Study
from frdet.errors import ConfigError
from tests import warm
from tests.apis.ablation import toys
from tests.signals import heed_ctrl_c

ROOT = Path(__file__).resolve().parents[3]
STEPS = list(range(20))
# Trains the study in a folder with the script beside it.
PROGRAM = """
import sys
from frdet.apis.ablation import running
from frdet.apis.ablation.study import load_study
sys.executable = {python!r}
study = load_study({work_dir!r})
sys.exit(len(running.train_jobs(study.jobs(), {train!r}, count=2)))
"""


@pytest.fixture
def study(tmp_path):
    study = Study(tmp_path / 'study', ('base', 'other'), (0, 1))
    for name in study.variants:
        study.folder(name).mkdir(parents=True)
        (study.folder(name) / 'config.py').touch()
    study.save()
    (tmp_path / 'train.py').write_text(toys.FAKE_TRAIN)
    return study


def train(study, **kwargs):
    return running.train_jobs(study.jobs(), study.work_dir.with_name('train.py'), **{'count': 2, **kwargs})


def begin(study):
    """Train in a process of its own."""
    train = str(study.work_dir.with_name('train.py'))
    code = PROGRAM.format(python=sys.executable, work_dir=str(study.work_dir), train=train)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen([warm.python(), '-c', code], env=environment, preexec_fn=heed_ctrl_c)


def check(study):
    """Every run did every step once, and never did two processes train it at the same time."""
    for job in study.jobs():
        assert job.state == 'finished'
        steps, processes = zip(*toys.steps_of(job.work_dir), strict=True)
        assert list(steps) == STEPS
        assert len(set(processes)) == 1 + sum(a != b for a, b in zip(processes[1:], processes, strict=False))


def trainings(study):
    """The processes that train now."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            words = path.read_bytes().split(b'\0')
        except OSError:
            continue
        if os.fsencode(study.work_dir.with_name('train.py')) in words:
            found.append(int(path.parent.name))
    return found


def test_each_run_is_trained_once_pairs_first(study):
    states = []
    assert train(study, count=1, update=lambda: states.append([job.state for job in study.jobs()])) == {}
    check(study)
    ended = [(job.work_dir / 'finished.json').stat().st_mtime_ns for job in study.jobs()]
    assert ended == sorted(ended)
    assert [job.name for job in study.jobs()] == ['base/seed_0', 'other/seed_0', 'base/seed_1', 'other/seed_1']
    assert states[0] == ['running', 'waiting', 'waiting', 'waiting'] and states[-1] == ['finished'] * 4
    before = [(job.work_dir / 'steps.txt').stat().st_mtime_ns for job in study.jobs()]
    assert train(study) == {}
    assert before == [(job.work_dir / 'steps.txt').stat().st_mtime_ns for job in study.jobs()]


def test_a_run_that_fails_does_not_end_the_others_and_goes_on_later(study):
    fail = study.folder('other') / 'fail'
    fail.touch()
    failed = train(study)
    assert {job.name: code for job, code in failed.items()} == {'other/seed_0': 1, 'other/seed_1': 1}
    assert [job.state for job in study.jobs()] == ['finished', 'stopped', 'finished', 'stopped']
    assert study.job('other', 0).last_words() == ['begins at 0', 'error: it fails as it was told']
    fail.unlink()
    assert train(study) == {}
    check(study)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_lets_its_runs_save(study, number):
    slow = study.folder('base') / 'slow'
    slow.touch()
    process = begin(study)
    while not study.job('base', 0).work_dir.is_dir():
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait() not in (0, -signal.SIGKILL)
    assert trainings(study) == []
    assert study.job('base', 0).state == 'stopped'
    slow.unlink()
    assert train(study) == {}
    check(study)


def test_two_processes_share_a_study(study):
    first, second = begin(study), begin(study)
    assert (first.wait(), second.wait()) == (0, 0)
    check(study)


def test_killed_at_drawn_moments(study):
    """With the trainings, and without them: then the next process waits for those that are left behind."""
    drawn = random.Random(0)
    for _ in range(4):
        process = begin(study)
        while process.poll() is None and not trainings(study):
            time.sleep(0.01)
        time.sleep(drawn.uniform(0.0, 0.2))
        process.kill()
        process.wait()
        for training in trainings(study) if drawn.random() < 0.5 else ():
            os.kill(training, signal.SIGKILL)
    assert begin(study).wait() == 0
    check(study)


def test_a_dead_process_keeps_no_lock(study):
    job = study.job('base', 0)
    process = running.start(job, [sys.executable, '-c', 'import time; time.sleep(100)'])
    assert job.is_running and running.start(job, ['false']) is None
    process.kill()
    process.wait()
    assert not job.is_running and job.state == 'stopped'


def test_shares_of_the_machine(monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: set(range(8)))
    monkeypatch.setattr(running.torch.cuda, 'device_count', lambda: 0)
    assert running.environments(1) == [{}]
    assert running.environments(3) == [{'OMP_NUM_THREADS': '2'}] * 3
    assert running.default_jobs() == 1
    monkeypatch.setattr(running.torch.cuda, 'device_count', lambda: 2)
    assert running.default_jobs() == 2
    found = [one['CUDA_VISIBLE_DEVICES'] for one in running.environments(3)]
    assert found == ['0', '1', '0']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    assert [one['CUDA_VISIBLE_DEVICES'] for one in running.environments(2)] == ['4', '6']


def test_no_jobs(study):
    with pytest.raises(ConfigError, match='--jobs 0'):
        train(study, count=0)
