import fcntl
import json
import re
import threading

import pytest

from frdet.insight.ablation.live import Board
from tests.insight.ablation.made import make_run, make_study
from tests.insight.report.made import FIRST, SECOND, scalars
from tests.terminal import HIDE, SHOW, screen


@pytest.fixture
def study(tmp_path):
    """40 iterations of 0.5 seconds, and no time of validations."""
    return make_study(tmp_path, ('base', 'giou[red]'), (0, 1))


@pytest.fixture
def lock():
    """Locks a run as the process does that trains it."""
    files = []

    def lock_run(job):
        files.append(open(job.lock, 'w'))  # noqa: SIM115  # closed below
        fcntl.flock(files[-1], fcntl.LOCK_EX)
        return files[-1]

    yield lock_run
    for file in files:
        file.close()


def add(job, *records):
    with open(job.work_dir / FIRST / 'scalars.json', 'a') as file:
        file.writelines(f'{json.dumps(record)}\n' for record in records)


def rows(shown):
    """The cells of the last table, by run, and the last line."""
    last = shown.lines[max(n for n, line in enumerate(shown.lines) if line.startswith('run ')) :]
    cells = {row[0]: row[1:] for line in last if len(row := re.split('  +', re.sub('[━╸╺]', '', line))) > 1}
    return cells, [line for line in last if line][-1]


def test_lines_without_a_terminal(study, lock, capsys):
    make_run(study, 'base', 0, 0.6124)
    with Board(study) as board:
        board.update()
        # 4 records of 10 iterations of 0.25 seconds
        assert capsys.readouterr().out == 'base/seed_0: finished, coco/bbox_mAP 0.612, 0:00:10 of training\n'
        job = make_run(study, 'giou[red]', 0, reached=20)
        file = lock(job)
        board.update()
        board.update()
        assert capsys.readouterr().out == 'giou[red]/seed_0: running\n'
        file.close()
        board.update()
        assert capsys.readouterr().out == 'giou[red]/seed_0: stopped: RuntimeError: no <memory>\n'
        study.job('base', 1).output.write_text('')
    assert capsys.readouterr().out == 'base/seed_1: stopped\n'  # the end of the board looks once more


def test_a_table_on_a_terminal(study, lock):
    make_run(study, 'base', 0, 0.6124)
    job = make_run(study, 'giou[red]', 0, reached=10)
    lock(job)
    make_run(study, 'base', 1, reached=20)
    before = threading.active_count()
    with screen() as shown, Board(study) as board:
        board.update()
        cells, summary = rows(shown)
        # Iterations took 0.25 seconds; those of the run that has not begun take 0.5, as in the trial.
        assert cells['run'] == ['state', 'iteration', 'ETA', 'coco/bbox_mAP']
        assert cells['base/seed_0'] == ['finished', '40 of 40', '0.612']
        assert cells['giou[red]/seed_0'] == ['running', '10 of 40', '0:00:07', '0.125']  # 30 * 0.25
        assert cells['base/seed_1'] == ['stopped', '20 of 40', '0.250']
        assert cells['giou[red]/seed_1'] == ['waiting', '0 of 40']
        assert 'base/seed_1: stopped: RuntimeError: no <memory>' in shown.lines
        # 7.5 seconds, 20 * 0.25 and 40 * 0.5, one after another
        assert summary == '4 runs: 1 running, 1 stopped, 1 finished, 1 waiting; ETA 0:00:32'
        add(job, {'iter': 30, 'time': 0.5}, {'coco/bbox_mAP': -1.0}, {'coco/bbox_mAP': 0.25}, {'coco/bbox_mAP': -1.0})
        print('printed')
        board.update()
        assert rows(shown)[0]['giou[red]/seed_0'] == ['running', '30 of 40', '0:00:05', '0.250']
        assert 'printed' in shown.lines and threading.active_count() == before
    assert shown.getvalue().rindex(SHOW) > shown.getvalue().rindex(HIDE)
    assert rows(shown)[0]['base/seed_0'] == ['finished', '40 of 40', '0.612']  # the table stays


def test_the_last_iterations_are_not_logged(study):
    job = make_run(study, 'base', 0, 0.5, reached=30)
    (job.work_dir / 'finished.json').write_text('{"iter": 38}')
    with screen() as shown, Board(study) as board:
        board.update()
        assert rows(shown)[0]['base/seed_0'][1] == '38 of 40'


def test_validations_take_time(study, lock):
    trial = {'iterations': 40, 'seconds': 0.5, 'validations': 4, 'val_images': 10, 'val_seconds': 2.0}
    (study.folder('base') / 'trial.json').write_text(json.dumps(trial))
    lock(make_run(study, 'base', 0, reached=20))
    with screen() as shown, Board(study) as board:
        board.update()
        assert rows(shown)[0]['base/seed_0'][2] == '0:00:45'  # half of 40 * 0.25 + 4 * 10 * 2


def test_only_what_is_new_is_read(study, lock):
    """A line that is half written is read once it is whole; a resumed run goes on in a new file."""
    job = make_run(study, 'base', 0, reached=10)
    log = job.work_dir / FIRST / 'scalars.json'
    lock(job)
    with screen() as shown, Board(study) as board:
        board.update()
        log.write_text(f'{"x" * log.stat().st_size}{{"iter": 2')  # what was read is not read again
        board.update()
        assert rows(shown)[0]['base/seed_0'][1] == '10 of 40'
        with open(log, 'a') as file:
            file.write('0}\n{"it')
        board.update()
        assert rows(shown)[0]['base/seed_0'][1] == '20 of 40'
        scalars(job.work_dir / SECOND, [{'iter': 25}])
        board.update()
        assert rows(shown)[0]['base/seed_0'][1:] == ['25 of 40', '0:00:03', '0.125']  # 15 * 0.25


def test_little_room(tmp_path, lock, monkeypatch):
    """Runs that are trained come first, then those that stopped."""
    study = make_study(tmp_path, ('base',), range(40))
    for seed in range(30):
        make_run(study, 'base', seed, 0.5)
    make_run(study, 'base', 31)
    lock(make_run(study, 'base', 35, reached=20))
    with screen() as shown, Board(study) as board:
        monkeypatch.setenv('LINES', '9')
        board.update()
        cells, summary = rows(shown)
    assert list(cells) == ['run', 'base/seed_0', 'base/seed_31', 'base/seed_35']
    assert summary.startswith('40 runs: 1 running, 1 stopped, 30 finished, 8 waiting; ETA')


def test_without_a_trial(tmp_path, lock):
    study = make_study(tmp_path, metric='my/[red]error')
    (study.folder('base') / 'trial.json').unlink()
    lock(make_run(study, 'base', 0, reached=20))
    with screen() as shown, Board(study) as board:
        board.update()
        cells, summary = rows(shown)
    assert cells['run'][-1] == 'my/[red]error'
    assert cells['base/seed_0'] == ['running', '20', '0.250']
    assert summary == '6 runs: 1 running, 5 waiting'


def test_a_log_without_times(study, lock, capsys):
    """A duration that is not known is not said; without a log there is nothing to say at all."""
    (study.folder('base') / 'trial.json').unlink()
    job = study.job('base', 0)
    scalars(job.work_dir / FIRST, [{'iter': 10}])
    file = lock(job)
    with Board(study) as board:
        board.update()
        (job.work_dir / 'finished.json').write_text('{"iter": 40}')
        file.close()
        job.work_dir.with_name('seed_1').mkdir()
        (job.work_dir.with_name('seed_1') / 'finished.json').write_text('{}')
    lines = capsys.readouterr().out.splitlines()
    assert lines == ['base/seed_0: running', 'base/seed_0: finished', 'base/seed_1: finished']


def test_runs_at_once_share_what_is_left(study, lock):
    for job in study.jobs():
        lock(make_run(study, *job[:2], reached=20))
    with screen() as shown, Board(study) as board:
        board.update()
        assert rows(shown)[1] == '4 runs: 4 running; ETA 0:00:05'  # 20 * 0.25
