"""tools/convert_dataset.py, and its commands in the documentation."""

import importlib.util
import re
import shlex
import sys

import pytest

from frdet.datasets import write_shapes
from frdet.errors import DataError
from tests.engine.toy import ROOT


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=3, num_val=2)


@pytest.fixture
def run(monkeypatch, capsys, shapes, tmp_path):
    """Run the tool in a folder whose ``data/cells`` is the drawn data set; returns what it printed."""
    spec = importlib.util.spec_from_file_location('convert_dataset', ROOT / 'tools/convert_dataset.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/cells').symlink_to(shapes)
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['convert_dataset.py', *args])
        tool.main()
        return capsys.readouterr().out

    return call


def test_what_it_says(run, tmp_path):
    lines = run('data/cells', 'out/voc', '--to', 'voc').splitlines()
    assert lines[0] == 'data/cells: COCO JSON' and lines[-1] == 'Written to out/voc'
    assert re.fullmatch(r'train: 3 images, \d+ boxes', lines[1]) and re.fullmatch(r'val: 2 images, \d+ boxes', lines[2])
    assert len(list((tmp_path / 'out/voc/JPEGImages').glob('*'))) == 5
    with pytest.raises(DataError, match='out/voc exists'):
        run('data/cells', 'out/voc', '--to', 'voc')
    with pytest.raises(SystemExit):
        run('data/cells', 'out/pascal', '--to', 'pascal')


def test_commands_of_the_documentation(run, tmp_path):
    text = (ROOT / 'docs/data_formats.md').read_text()
    commands = [line for line in text.splitlines() if 'tools/convert_dataset.py' in line and line.startswith('    ')]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)[2:]
        run(*words)
        assert (tmp_path / words[1]).is_dir()
