import runpy
import sys

import pytest

from tests.tools.test_train_and_test import ROOT
from tests.visualization.report.made import FIRST, make_run, scalars, step


@pytest.fixture
def analyze(monkeypatch, capsys):
    def run(*args):
        """The tool in this process; its exit code, output and errors."""
        monkeypatch.setattr(sys, 'argv', ['tools/analyze_logs.py', *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / 'tools/analyze_logs.py'), run_name='__main__')
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def runs(tmp_path):
    scalars(tmp_path / 'b' / FIRST, [step(1, 8.0), step(2, 6.0)])
    return make_run(tmp_path, name='a', images=False), tmp_path / 'b'


def test_curves(analyze, runs, tmp_path):
    out = tmp_path / 'curves.svg'
    code, output, _ = analyze('curves', *runs, '--keys', 'loss', 'bbox_mAP', '--out', out, '--legend', 'new', 'old')
    assert code == 0
    assert output == f'old has no coco/bbox_mAP\nloss, coco/bbox_mAP: {out}\n'
    assert all(f'>{name}</text>' in out.read_text() for name in ('new', 'old', 'loss', 'coco/bbox_mAP'))


def test_speed(analyze, runs):
    """Every iteration took two seconds; only the finished run has epochs."""
    code, output, _ = analyze('speed', *runs)
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in output.splitlines() if line.startswith('|')]
    assert code == 0 and 'a: 6 iterations' in output and 'b: 2 iterations' in output
    assert rows[1] == ['1', '2', '2.0000', '2.0000', '2.0000', '-', '-', '100']
    assert rows[4] == ['all', '6', '2.0000', '2.0000', '2.0000', '-', '-', '120']
    assert rows[6] == ['all', '2', '2.0000', '2.0000', '2.0000', '-', '-', '-']
    assert 'Slowest epoch: 1, 2.0000 s an iteration; fastest: 1, 2.0000 s; standard deviation' in output


def test_the_share_of_waiting(analyze, tmp_path):
    scalars(tmp_path / FIRST, [step(1, 1.0, data_time=0.5), step(2, 1.0, data_time=0.0)])
    _, output, _ = analyze('speed', tmp_path)
    assert [cell.strip() for cell in output.splitlines()[4].split('|')[6:8]] == ['0.2500', '12.5%']  # of 2 seconds


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['curves', '{runs}/none'], 'No folder'),
        (['curves', '{runs}/a', '--keys', 'los'], 'did you mean loss?'),
        (['curves', '{runs}/a', '--out', 'a.bmp'], "ends in '.bmp'"),
        (['curves', '{runs}/odd'], 'choose others with --keys'),
        (['speed', '{runs}/odd'], 'logged no time'),
        (['speed', '{runs}/a', '{runs}/a'], 'compared with itself'),
    ],
)
def test_errors_in_words(analyze, runs, tmp_path, args, words):
    scalars(tmp_path / 'odd' / FIRST, [dict(iter=1, lr=0.1)])
    code, _, error = analyze(*(arg.format(runs=tmp_path) for arg in args))
    assert code == 1 and words in error and 'Traceback' not in error
