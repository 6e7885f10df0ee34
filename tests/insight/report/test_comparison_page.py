import pytest

from frdet.errors import ConfigError
from frdet.insight.report import write_comparison
from frdet.insight.report.comparison_page import ablation, differences, last_metrics
from frdet.insight.report.run import read_run
from tests.insight.report.made import FIRST, make_run, scalars, step, validation
from tests.insight.report.test_training_page import table_of

BASE = "model = dict(head=dict(lr=1, norm=None))\nhooks = [dict(type='A')]\nwork_dir = 'a'\n"
OTHER = "model = dict(head=dict(lr=2, norm=None), neck=dict())\nhooks = [dict(type='B')]\nwork_dir = 'b'\n"


@pytest.fixture
def runs(tmp_path):
    more = [step(7, 0.25, 4), step(8, 0.25, 4, memory=300), validation(4, 0.45)]
    return make_run(tmp_path, name='a', config=BASE), make_run(tmp_path, name='b', config=OTHER, more=more)


def test_ablation_by_hand(runs):
    head, rows = ablation([read_run(run) for run in runs])
    assert head == [
        'best AP', 'Δ', 'last AP', 'Δ', 'last AP50', 'Δ', 'iterations', 's / iteration', 'waiting for data',
        'hours', 'memory, MB',
    ]  # fmt: skip
    assert rows == [
        [0.3, None, 0.2, None, 0.4, None, 6, 2.0, None, 12 / 3600, 120.0],
        [0.45, '+0.1500', 0.45, '+0.2500', 0.9, '+0.5000', 8, 2.0, None, 16 / 3600, 300.0],
    ]


def test_waiting_for_data_is_a_share_of_the_time(tmp_path):
    scalars(tmp_path / FIRST, [step(1, 1.0, data_time=0.5), step(2, 1.0, data_time=0.0)])  # of 2 seconds each
    head, rows = ablation([read_run(tmp_path)] * 2)
    assert [row[head.index('waiting for data')] for row in rows] == ['12.5%', '12.5%']


def test_other_metrics_of_the_last_validation(tmp_path):
    last = {'coco/bbox_mAP': 0.2, 'coco/bbox_mAP_75': 0.1, 'coco/bbox_mAP_s': -1.0, 'step': 4}
    runs = [
        make_run(tmp_path, name='a', more=[last]),
        make_run(tmp_path, name='b', more=[{**last, 'coco/bbox_mAP_75': 0.3}]),
    ]
    head, rows = last_metrics([read_run(run) for run in runs])
    assert head == ['AP75', 'Δ']  # nobody has small objects
    assert rows == [[0.1, None], [0.3, '+0.2000']]


def test_differences_of_configs():
    rows = differences([{'a.b': 1, 'c': 2, 'work_dir': 'x'}, {'a.b': 1, 'd': 3, 'work_dir': 'y'}])
    assert rows == [['c', '2', None], ['d', None, '3']]


def test_page(runs, tmp_path, browser):
    page = write_comparison(runs, tmp_path / 'page.html')
    content = page.read_text()
    assert 'No warnings.' in content
    assert table_of(content, 'Runs')[1][:3] == ['b', '0.45', '+0.1500']
    assert table_of(content, 'Differences of the configs') == [
        ['model.head.lr', '1', '2'],
        ['hooks.0.type', '&#39;A&#39;', '&#39;B&#39;'],
        ['model.neck', '–', '{}'],
    ]
    browser.check(page)


def test_equal_configs(tmp_path):
    runs = [make_run(tmp_path, name=name) for name in 'ab']
    assert 'The configs are the same' in write_comparison(runs, tmp_path / 'page.html').read_text()


def test_runs_that_cannot_be_compared(runs, tmp_path):
    with pytest.raises(ConfigError, match='1 run to compare'):
        write_comparison(runs[:1], tmp_path / 'page.html')
    with pytest.raises(ConfigError, match='with itself'):
        write_comparison([runs[0], runs[0]], tmp_path / 'page.html')
    with pytest.raises(ConfigError, match='No folder'):
        write_comparison([runs[0], tmp_path / 'gone'], tmp_path / 'page.html')


def test_config_that_cannot_be_read(runs, tmp_path):
    for path in runs[1].glob('*/vis_data/config.py'):
        path.write_text('a = = 1')
    content = write_comparison(runs, tmp_path / 'page.html').read_text()
    assert 'b: The config' in content and 'cannot be read' in content
