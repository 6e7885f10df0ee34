import json

import pytest
from matplotlib.figure import Figure
from PIL import Image

from frdet.errors import ConfigError
from frdet.visualization.report.log_analysis import (
    Pace,
    choose_keys,
    curves,
    paces,
    read_logs,
    values_of,
    write_curves,
)
from tests.visualization.report.made import FIRST, make_run, scalars, step, validation
from tests.visualization.report.test_training_page import table_of


@pytest.fixture
def logs(tmp_path):
    """Six iterations and three validations; and a run that has just begun."""
    scalars(tmp_path / 'b' / FIRST, [step(1, 8.0), step(2, 6.0)])
    return read_logs([make_run(tmp_path, name='a'), tmp_path / 'b'])


@pytest.mark.parametrize(
    ('patterns', 'keys'),
    [
        (None, ['loss', 'loss_cls', 'coco/bbox_mAP']),
        (['lr', 'loss_c*'], ['lr', 'loss_cls']),
        (['*mAP*', 'bbox_mAP'], ['coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_l']),  # each once
        (['[lt]*'], ['lr', 'loss', 'loss_cls', 'time']),
    ],
)
def test_keys_by_pattern(logs, patterns, keys):
    assert choose_keys(logs, patterns) == keys


def test_an_unknown_key(logs):
    with pytest.raises(ConfigError, match=r"'loss_clz': did you mean loss_cls\? There are coco/bbox_mAP, .*, time$"):
        choose_keys(logs, ['lr', 'loss_clz'])
    with pytest.raises(ConfigError, match=r"'zzz\*': There are coco"):
        choose_keys(logs, ['zzz*'])


def test_values(logs):
    assert [values.tolist() for values in values_of(logs['a'], 'coco/bbox_mAP')] == [[2, 4, 6], [0.1, 0.3, 0.2]]
    assert [len(values) for values in values_of(logs['a'], 'coco/bbox_mAP_l')] == [0, 0]  # -1: there is no large object
    assert values_of(logs['b'], 'loss')[1].tolist() == [8, 6]


def test_a_plot_for_each_key_and_a_line_for_each_run(logs):
    plot = curves(logs, ['loss', 'lr', 'time', 'coco/bbox_mAP'])
    assert (plot.rows, plot.columns) == (2, 3)
    figure = Figure()
    axes = figure.subplots(2, 3)
    plot.paint(axes)
    drawn = [{line.get_label(): line.get_xydata().T.tolist() for line in axis.lines} for axis in axes.flat]
    assert drawn[0] == {'a': [[1, 2, 3, 4, 5, 6], [4, 3, 2, 2.5, 1.5, 0.5]], 'b': [[1, 2], [8, 6]]}
    assert drawn[3] == {'a': [[2, 4, 6], [0.1, 0.3, 0.2]], 'b': [[], []]}
    assert [axis.get_title() for axis in axes.flat if axis.get_visible()] == ['loss', 'lr', 'time', 'coco/bbox_mAP']
    assert [text.get_text() for text in figure.legends[0].texts] == ['a', 'b']


@pytest.mark.parametrize(('name', 'begin'), [('a.png', b'\x89PNG'), ('new/a.SVG', b'<?xml'), ('a.pdf', b'%PDF')])
def test_pictures(logs, tmp_path, name, begin):
    write_curves(logs, ['loss', 'coco/bbox_mAP'], tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(begin)
    if name == 'a.png':
        with Image.open(tmp_path / name) as image:
            assert len(image.convert('RGB').getcolors(1 << 20)) > 20  # something is drawn
    if name == 'new/a.SVG':
        assert all(f'>{text}</text>'.encode() in content for text in ('coco/bbox_mAP', 'a', 'b'))  # titles and legend


def test_page(logs, tmp_path, browser):
    write_curves(logs, ['loss', 'coco/bbox_mAP'], tmp_path / 'a.html')
    assert table_of((tmp_path / 'a.html').read_text(), 'Values of the curves') == [
        ['loss', 'a', '6', '4', '0.5', '4', '0.5', '6'],
        ['loss', 'b', '2', '8', '6', '8', '6', '2'],
        ['coco/bbox_mAP', 'a', '3', '0.1', '0.1', '0.3', '0.2', '6'],
        ['coco/bbox_mAP', 'b', '0', '–', '–', '–', '–', '–'],
    ]
    browser.check(tmp_path / 'a.html')


def test_files_that_cannot_be_written(logs, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in '.bmp': expected .png, .svg"):
        write_curves(logs, ['loss'], tmp_path / 'a.bmp')
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match='cannot be written'):
        write_curves(logs, ['loss'], tmp_path / 'file/a.png')


def test_paces_by_hand(tmp_path):
    def entry(iteration, epoch, time, data_time, **more):
        return {**step(iteration, 1.0, epoch), 'time': time, 'data_time': data_time, **more}

    records = [entry(1, 1, 4.0, 1.0), entry(2, 1, 2.0, 0.5, memory=900), entry(3, 2, 1.0, 0.0, memory=1000)]
    scalars(tmp_path / FIRST, [*records, entry(4, 2, 1.0, 0.5), validation(2, 0.1)])
    assert paces(read_logs([tmp_path])[tmp_path.name]) == [
        Pace(epoch=1, entries=2, mean=3.0, fastest=2.0, slowest=4.0, waiting=0.75, memory=900),
        Pace(epoch=2, entries=2, mean=1.0, fastest=1.0, slowest=1.0, waiting=0.25, memory=1000),
        Pace(epoch=None, entries=4, mean=2.0, fastest=1.0, slowest=4.0, waiting=0.5, memory=1000),  # 8 / 4, 2 / 4
    ]


def test_paces_without_epochs_times_or_waiting(tmp_path):
    scalars(tmp_path / FIRST, [step(1, 1.0), step(2, 1.0)])
    assert paces(read_logs([tmp_path])[tmp_path.name]) == [Pace(None, 2, 2.0, 2.0, 2.0, None, None)]
    scalars(tmp_path / FIRST, [dict(iter=1, loss=1.0)])
    assert paces(read_logs([tmp_path])[tmp_path.name]) == []


def test_runs_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match='No folder'):
        read_logs([tmp_path / 'none'])
    (tmp_path / 'none').mkdir()
    with pytest.raises(ConfigError, match='is no work folder'):
        read_logs([tmp_path / 'none'])
    (tmp_path / 'none' / FIRST).mkdir(parents=True)
    with pytest.raises(ConfigError, match='has no entry in its log.*default_hooks.logger.interval'):
        read_logs([tmp_path / 'none'])
    scalars(tmp_path / 'none' / FIRST, [step(1, 1.0)])
    with pytest.raises(ConfigError, match='1 runs, and names a, b'):
        read_logs([tmp_path / 'none'], ['a', 'b'])


def test_a_last_line_that_was_cut_off(tmp_path):
    scalars(tmp_path / FIRST, [step(1, 4.0)])
    with open(tmp_path / FIRST / 'scalars.json', 'a') as file:
        file.write('\n' + json.dumps(step(2, 3.0))[:-9])
    assert values_of(read_logs([tmp_path], ['a'])['a'], 'loss')[1].tolist() == [4]
