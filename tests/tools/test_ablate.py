"""tools/ablate.py as a user starts it, on toys that train in a second."""

import csv
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import warm
from tests.apis.ablation import toys

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ('seconds', 'hours', 'memory')  # columns that depend on the machine


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
    """The table of a study."""
    with open(work / 'ablation.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


def test_killed_at_ten_drawn_moments(finished, tmp_path):
    """The same table as without. Half of the times the training dies, too; else the next start waits for it."""
    folder, _ = finished
    toys.write_study(tmp_path, pause=0.02)
    work, drawn = tmp_path / 'work', random.Random(1)
    words = ('study.py', '--work-dir', str(work))
    for _ in range(10):
        process = ablate(tmp_path, *words)
        time.sleep(drawn.uniform(0.0, 1.5))
        process.kill()
        process.communicate()
        for training in trainings(work) if drawn.random() < 0.5 else ():
            os.kill(training, signal.SIGKILL)
    run(tmp_path, *words)
    assert conclusions(work) == conclusions(folder / 'work')
    assert toys.results(work) == toys.results(folder / 'work')
    assert len(toys.results(work)) == 4


def test_from_a_study_file_to_its_table(finished):
    folder, said = finished
    work = folder / 'work'
    assert 'model.scale: not set -> 3.0' in said and 'By two iterations of each' in said
    assert '| strong ' in said and f'{work}/ablation.html' in said
    rows = conclusions(work)
    values = {f'{row["variant"]}/seed_{seed}': float(row[f'seed_{seed}']) for row in rows for seed in (0, 1)}
    assert values == pytest.approx(toys.results(work), abs=1e-12) and len(set(values.values())) == 4
    names = ('ablation.html', 'ablation.md', 'ablation.tex', 'base/seed_0/report.html', 'strong/seed_1/report.html')
    assert all((work / name).stat().st_size for name in names)


def test_again_trains_nothing_and_a_page_may_be_made_at_any_time(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / 'work').rglob('*.out')}
    said = run(folder, 'study.py', '--work-dir', str(folder / 'work'))
    planned = run(folder, 'study.py', '--work-dir', str(folder / 'work'), '--dry-run', '--no-trial')
    assert re.findall(r'^\| (\w+) +\| +(\d) ', planned, re.M) == [('base', '0'), ('strong', '0')]  # runs left
    (folder / 'work/ablation.html').unlink()
    traced = run(folder, '--report', str(folder / 'work'), '--trace')
    assert traced.splitlines()[-1] == said.splitlines()[-1]
    # The data of the toys are no DetDataset.
    assert 'warning: No trace of base/seed_0, strong/seed_0, base/seed_1 and 1 more: CocoMetric has no' in traced
    assert (folder / 'work/ablation.html').is_file()
    assert before == {path: path.stat().st_mtime_ns for path in (folder / 'work').rglob('*.out')}


def test_a_plan_alone_and_commands_for_a_scheduler(tmp_path):
    toys.write_study(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    said = run(tmp_path, 'study.py', '--dry-run', '--jobs', '2')
    assert '2 configs x 2 seeds (0, 1)' in said and 'with 2 at once' in said
    assert sorted(tmp_path.rglob('*')) == before
    lines = run(tmp_path, 'study.py', '--no-trial', '--seeds', '3,5', '--print-commands').splitlines()
    commands = [line for line in lines if line.startswith('flock')]
    assert [line.split('--seed ')[1] for line in commands] == ['3 --resume', '3 --resume', '5 --resume', '5 --resume']
    done = subprocess.run(commands[3], shell=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0 and (tmp_path / 'work_dirs/study/strong/seed_5/finished.json').is_file()


def test_a_run_that_fails(tmp_path):
    """The others go on, its last words are shown, and the table says what is missing."""
    toys.write_study(tmp_path)
    study = tmp_path / 'study.py'
    study.write_text(study.read_text().replace("{'model.scale': 3.0}", "{'model.bad_iteration': 6}"))
    said = run(tmp_path, 'study.py', '--no-trial', code=1)
    assert 'strong/seed_0 failed with exit code 1' in said and 'loss_bbox is nan' in said
    assert 'Missing: strong/seed_0' in said and 'strong/seed_1' in said
    assert conclusions(tmp_path / 'work_dirs/study')[1]['mean'] == ''


@pytest.mark.parametrize(
    ('words', 'code', 'expected'),
    [
        (['missing.py'], 1, 'missing.py does not exist'),
        (['study.py', '--seeds', '1', '--no-trial'], 1, 'two or more'),
        (['study.py', '--seeds', 'many'], 2, 'a number of seeds, or seeds: 0,1,5'),
        (['study.py', '--metric', 'coco/bbox_MAP'], 1, 'did you mean coco/bbox_mAP?'),
        (['study.py', '--budget', '0.0001'], 1, 'more than the budget of 0.0001'),
        (['study.py', '--jobs', '0'], 2, "argument --jobs: '0', expected at least 1"),
        (['--report', '.'], 1, 'holds no study.json'),
        (['--report', '.', '--seeds', '4'], 2, '--report takes a work dir'),
        (['study.py', '--budget', '9', '--no-trial'], 1, 'base, strong was not tried'),
        (['study.py', '--slurm', 'gpu', '--slurm-options', 'timeout_mn=5'], 1, 'timeout_min'),
        ([], 2, 'STUDY.py'),
        (['--search', 'study.py'], 1, 'variants (study.py:2): unknown'),
        (['--search', 'study.py', '--dry-run'], 2, '--search takes only'),
        (['study.py', '--trace', '--dry-run'], 2, '--trace traces finished runs: leave it out here'),
        (['--search', 'study.py', '--trace'], 2, '--search takes only'),
        (['study.py', '--trials', '3'], 2, '--trials is for --search'),
        (['study.py', '--slurm', 'gpu', '--no-trial'], 1, 'Slurm is not on this machine'),
    ],
)  # fmt: skip
def test_bad_input(tmp_path, words, code, expected):
    toys.write_study(tmp_path)
    said = run(tmp_path, *words, code=code)
    assert expected in said and 'Traceback' not in said
    assert not list(tmp_path.rglob('*.out'))
