"""The command: what it prints, where it writes, and what it refuses."""

import re
import runpy
import sys

import pytest

from frdet.datasets.shapes import write_shapes
from frdet.insight.trace import Summary
from tests.tools.test_train_and_test import ROOT
from tests.weights import NARROW_WORDS

CONFIG = 'configs/quickstart/r18_fpn_shapes.py'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=1, num_val=3)


@pytest.fixture
def trace(root, tmp_path, monkeypatch, capsys):
    """The exit code, and what is printed to either stream."""

    def run(*args):
        words = [*NARROW_WORDS, f'test_dataloader.dataset.data_root={root}', f'work_dir={tmp_path}']
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, 'argv', ['tools/trace_objects.py', CONFIG, *args, '--cfg-options', *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path('tools/trace_objects.py', run_name='__main__')
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


def test_without_a_checkpoint_into_the_work_dir(trace, tmp_path):
    code, out, err = trace('--cards', '1')
    assert not code, err
    page = tmp_path / 'trace/trace.html'
    assert out.splitlines()[-1] == f'The page is {page}'
    table = {name: int(count) for name, count in re.findall(r'^\| ([a-zA-Z][\w -]*?) +\| (\d+) +\|', out, re.M)}
    total = table.pop('all')
    summary = Summary.load(page.parent)
    assert total == sum(table.values()) == summary.objects > 0
    assert table == {name: count for name, count in summary.counts.items() if count}
    assert 'No checkpoint' in page.read_text()


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['a.pth', '--checkpoints', 'a.pth', 'b.pth'], 'give one checkpoint, or several by --checkpoints'),
        (['a.pth', '--cards', '-1'], '--cards and --help-images must be at least 0'),
        (['--checkpoints', 'a.pth'], '1 checkpoint to compare: give two or more'),
        (['a.pth'], 'No checkpoint a.pth: give the path of a file'),
        (['--iou', '0'], 'expected more than 0, and at most 1'),
    ],
)
def test_refused_in_words(trace, tmp_path, args, words):
    code, _, err = trace(*args, '--out', str(tmp_path / 'out/trace.html'))
    assert code in (1, 2) and words in err
