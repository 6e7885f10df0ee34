import json
import runpy
import sys

import pytest

from tests.tools.test_train_and_test import ROOT

CONFIG = 'configs/faster_rcnn/r50_fpn_1x_coco.py'


def flops(monkeypatch, *args):
    """The tool in this process; its exit code."""
    monkeypatch.setattr(sys, 'argv', ['tools/flops.py', *map(str, args)])
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path('tools/flops.py', run_name='__main__')
    return ended.value.code or 0


def test_table_and_json(monkeypatch, capsys, tmp_path):
    assert flops(monkeypatch, CONFIG, '--size', 64, 64, '--json', tmp_path / 'flops.json') == 0
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in capsys.readouterr().out.splitlines()]
    table = {row[0]: row[1:] for row in rows if row}
    # 212,992 weights at 16 x 16 cells: 0.0545 G multiply-adds.
    assert table['backbone.layer1'][:2] == ['0.11', '0.05']
    assert table['backbone.layer1'][3:] == ['212,992', '0', '212,992']
    content = json.loads((tmp_path / 'flops.json').read_text())
    assert content['size'] == [64, 64]
    (layer1,) = (stage for stage in content['stages'] if stage['name'] == 'backbone.layer1')
    assert (layer1['flops'], layer1['macs'], layer1['params']) == (2 * 212_992 * 256, 212_992 * 256, 212_992)


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['configs/none.py'], 'configs/none.py'),
        ([CONFIG, '--size', '0', '64'], 'expected at least 1'),
        ([CONFIG, '--size', '64', '64', '--json', '/dev/null/a.json'], 'choose another --json'),
        ([CONFIG, '--cfg-options', 'model.backbone.dept=18'], 'dept'),
    ],
)
def test_errors_in_words(monkeypatch, capsys, args, words):
    assert flops(monkeypatch, *args) == 1
    error = capsys.readouterr().err
    assert words in error and 'Traceback' not in error
