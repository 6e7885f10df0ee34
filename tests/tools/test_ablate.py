"""tools/ablate.py as a user starts it, on toys that train in a second."""

import csv
import os
import subprocess
from pathlib import Path

import pytest

from tests import warm
from tests.apis.ablation import toys

ROOT = Path(__file__).resolve().parents[2]


def ablate(folder, *words, **kwargs):
    return subprocess.Popen(
        [warm.python(), ROOT / 'tools/ablate.py', *words],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def run(folder, *words, code=0):
    process = ablate(folder, *words)
    said, _ = process.communicate()
    assert process.returncode == code, said
    return said


def trainings(folder):
    """The processes of tools/train.py that train in ``folder``."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            words = os.fsdecode(path.read_bytes()).split('\0')
        except OSError:
            continue
        if any(word.endswith('tools/train.py') for word in words) and any(str(folder) in word for word in words):
            found.append(int(path.parent.name))
    return found


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A study that nobody killed: its folder, and what was printed."""
    folder = tmp_path_factory.mktemp('finished')
    toys.write_study(folder, pause=0.02)
    return folder, run(folder, 'study.py', '--work-dir', str(folder / 'work'))


def conclusions(work):
    """The table without what depends on the machine."""
    with open(work / 'ablation.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def test_killed_at_ten_drawn_moments(finished, tmp_path):
    """The same table as without. Half of the times the training dies, too; else the next start waits for it."""
    folder, _ = finished
    toys.write_study(tmp_path, pause=0.02)
    work, drawn = tmp_path / 'work', random.Random(1)
    words = ('study.py', '--work-dir', str(work), '--no-trial')
    for _ in range(10):
        process = ablate(tmp_path, *words)
        time.sleep(drawn.uniform(0.0, 3.0))
        process.kill()
        process.communicate()
        for training in trainings(work) if drawn.random() < 0.5 else ():
            os.kill(training, signal.SIGKILL)
    run(tmp_path, *words)
    assert conclusions(work) == conclusions(folder / 'work')
    assert toys.results(work) == toys.results(folder / 'work')
    assert len(toys.results(work)) == 4
