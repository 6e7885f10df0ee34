"""check_data on a folder or file of labelled images, whatever wrote it."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from frdet.errors import ConfigError, DataError
from tests.own_data import LAYOUTS, Picture, draw, write
from tools import check_data


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The exit code of the tool, and what it prints."""
    monkeypatch.setenv('FRDET_CACHE', str(tmp_path / 'cache'))

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['check_data.py', *map(str, args)])
        code = check_data.main()
        return code, capsys.readouterr().out

    return run


TRAIN = draw(6)[:5]


def leaking():
    """Validation has a training image in half its size."""
    one = TRAIN[0]
    small = np.asarray(Image.fromarray(one.pixels).resize((64, 48)))
    boxes = [(name, [value // 2 for value in box]) for name, box in one.objects]
    return [Picture('again.jpg', small, boxes), *draw(3, seed=1)[:2]]


@pytest.mark.parametrize('layout', LAYOUTS)
def test_each_format(run, tmp_path, layout):
    write(tmp_path / 'data', layout, dict(train=TRAIN, val=leaking()))
    code, out = run(tmp_path / 'data', '--images', '--workers', 1, '--out', tmp_path / 'page.html')
    assert code == 0, out
    assert 'near-duplicate in two splits | 1 ' in out and '5 images, ' in out and '3 images, ' in out
    assert out.rstrip().endswith('. Nothing stops a run or makes it wrong.')
    assert 'Near-duplicate in two splits' in (tmp_path / 'page.html').read_text()


def test_a_file_and_a_folder_without_parts(run, tmp_path):
    write(tmp_path, 'coco', dict(all=TRAIN))
    (file,) = tmp_path.rglob('*.json')
    for source in (tmp_path, file):
        code, out = run(source)
        assert code == 0 and 'COCO JSON' in out and '(train): 5 images' in out
    content = json.loads(file.read_text())
    content['annotations'][0]['bbox'][2] = -5
    file.write_text(json.dumps(content))
    code, out = run(file)
    assert code == 1 and 'box of negative size' in out
    assert out.rstrip().endswith('Kinds of errors: 1, of notes: 1. A run would stop or be wrong.')


@pytest.mark.parametrize(('layout', 'ending', 'text'), [('voc', 'xml', '<annotation'), ('yolo', 'txt', '0 0.5')])
def test_all_files_that_cannot_be_read(run, tmp_path, layout, ending, text):
    """Two of five files make no sense; the check does not stop at the first one, as a training does."""
    write(tmp_path, layout, dict(all=TRAIN))
    files = sorted(tmp_path.rglob(f'picture_*.{ending}'))
    for file in files[1:3]:
        file.write_text(text)
    code, out = run(tmp_path)
    assert code == 1 and 'unreadable annotation file | 2 ' in out
    assert all(file.name in out for file in files[1:3])


def test_all_lines_of_a_table_that_are_wrong(run, tmp_path):
    """The other lines are checked as ever, and so is an image that only a wrong line names."""
    write(tmp_path, 'csv', dict(all=TRAIN))
    (table,) = tmp_path.rglob('*.csv')
    lines = table.read_text().splitlines()
    good = sum(len(one.objects) for one in TRAIN)
    first = lines[1].split(',')
    wrong = [','.join(cells) for cells in ([*first[:-1], 'x'], first[:2], [*first[:-1], 'nan'])]
    table.write_text('\n'.join([*lines, *wrong, f'new.png{wrong[0][len(first[0]) :]}', '']))
    code, out = run(tmp_path)
    assert code == 1 and 'wrong annotation | 4 ' in out and 'unreadable' not in out
    assert f'{len(TRAIN) + 1} images, {good} annotations' in out and 'missing image    | 1 ' in out
    for number, why in enumerate(('could not convert', 'it has 2 cells, expected', 'expected finite'), len(lines) + 1):
        assert f'line {number}, ' in out and why in out
    table.write_text('\n'.join([lines[0], *wrong]))
    assert 'wrong annotation | 3 ' in run(tmp_path)[1]
    table.write_text('\n'.join([lines[0], wrong[1]]))
    with pytest.raises(DataError, match='line 2, .*it has 2 cells, expected'):
        run(tmp_path)


def test_no_data(run, tmp_path):
    with pytest.raises(DataError):
        run(tmp_path)
    with pytest.raises(ConfigError, match='--cfg-options and --data change a config'):
        run(tmp_path, '--data', tmp_path)
