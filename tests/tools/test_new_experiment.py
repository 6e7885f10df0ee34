"""The command for one's own data, and --data of training and testing."""

import runpy
import sys
from pathlib import Path

import pytest

from frdet.apis.running import config_parser, parse_run
from tests import own_data

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return own_data.write(Path('cells'), 'csv', dict(all=own_data.draw(8)))


def call(monkeypatch, *words):
    """The exit code of the tool."""
    monkeypatch.setattr(sys, 'argv', ['new_experiment.py', *map(str, words)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / 'tools/new_experiment.py'), run_name='__main__')
    return end.value.code or 0


def test_it_says_what_it_understood_and_what_is_next(folder, monkeypatch, capsys):
    assert call(monkeypatch, folder, '--out', 'a b.py') == 0
    out = capsys.readouterr().out
    assert out.startswith('cells: CSV, 5 classes, no parts, so 20%') and 'Images: 8, 1 without a box' in out
    assert "Wrote 'a b.py'. Next:\n  python tools/check_data.py 'a b.py' --images\n" in out
    assert call(monkeypatch, folder, '--out', 'a b.py') == 1
    assert capsys.readouterr().err.startswith('error: a b.py is there already')
    assert call(monkeypatch, folder, '--out', 'a b.py', '--overwrite', '--background', folder) == 1
    assert capsys.readouterr().err.startswith('error: --background cells has labels')


@pytest.mark.parametrize('name', ['nowhere', 'empty'])
def test_no_data(name, tmp_path, monkeypatch, capsys):
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, name) == 1
    err = capsys.readouterr().err
    assert err.startswith(f'error: {name} ') and err.count('\n') <= 2
    assert not Path('configs').exists()


def test_data_of_another_folder(folder, monkeypatch):
    """As train.py and test.py parse their arguments."""
    call(monkeypatch, folder, '--out', 'mine.py')
    other = own_data.write(Path('other'), 'voc', dict(train=own_data.draw(6), val=own_data.draw(3, seed=1)))
    monkeypatch.setattr(sys, 'argv', ['train.py', 'mine.py', '--data', str(other)])
    cfg, arguments = parse_run(config_parser(''))
    assert 'data' not in arguments
    assert [cfg[f'{part}_dataloader'].dataset.data_root for part in ('train', 'val', 'test')] == ['other'] * 3
    assert "'other'" in cfg.pretty_text  # which is written into the work dir
