"""The page of traces of six objects: its numbers, what it refuses, and how it looks in a browser."""

import numpy as np
import pytest

from frdet.errors import ConfigError, DataError
from frdet.insight.trace import comparing, making
from frdet.insight.trace.comparing import checkpoint_names, trace_checkpoints, write_comparison_page
from frdet.insight.trace.model import FOUND
from frdet.insight.trace.shares_plot import spread
from tests.insight.report.test_training_page import table_of
from tests.insight.trace.written import STAGES, write_trace

ANCHOR, NMS, BACKGROUND, _ = STAGES
SHARES = 'Objects by stage, their shares in percent, and the change in percentage points'
#: Of the objects 1 to 6. From a to b the objects 2 and 3 are found, and 1 is lost; object 5 is lost elsewhere.
A = [FOUND, BACKGROUND, BACKGROUND, ANCHOR, BACKGROUND, FOUND]
B = [NMS, FOUND, FOUND, ANCHOR, NMS, FOUND]
C = [FOUND, FOUND, FOUND, ANCHOR, NMS, FOUND]


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp('traces')
    folders = {name: write_trace(root / name, stages) for name, stages in (('a', A), ('b', B), ('c <3>', C))}
    return write_comparison_page(folders, root / 'trace.html')


def test_what_it_says(page):
    content = page.read_text()
    assert 'No warnings.' in content
    assert table_of(content, SHARES) == [
        [ANCHOR, '1', '16.7', '1', '16.7', '+0.0', '1', '16.7', '+0.0'],
        [NMS, '0', '0.0', '2', '33.3', '+33.3', '1', '16.7', '-16.7'],
        [BACKGROUND, '3', '50.0', '0', '0.0', '-50.0', '0', '0.0', '+0.0'],
        [FOUND, '2', '33.3', '3', '50.0', '+16.7', '4', '66.7', '+16.7'],
    ]
    assert [row[1:] for row in table_of(content, 'Traces, with links to their pages')] == [
        [f'{page.parent}/{name}/epoch_1.pth', '6', found, recall, '4', '0.25']
        for name, found, recall in (('a', '2', '33.3%'), ('b', '3', '50.0%'), ('c &lt;3&gt;', '4', '66.7%'))
    ]


def test_moves(page):
    content = page.read_text()
    assert (
        'Of the 2 objects that a found, b lost 1. Of the 4 objects that a lost, b found 2.' in content
        and 'Of the 3 objects that b found, c &lt;3&gt; lost 0. Of the 3 objects that b lost, c &lt;3&gt; found 1.'
        in content
    )
    assert table_of(content, 'Moves from a to b, the largest first') == [
        [BACKGROUND, FOUND, '2'],
        [BACKGROUND, NMS, '1'],
        [FOUND, NMS, '1'],
    ]
    assert table_of(content, 'Moves from b to c &lt;3&gt;, the largest first') == [[NMS, FOUND, '1']]
    assert len(table_of(content, 'Moves from a to c &lt;3&gt;, the largest first')) == 2


def test_objects_that_are_never_found(page):
    content = page.read_text()
    assert 'Of 6 objects, 1 are found in every trace, 3 in some, and 2 in none.' in content
    assert table_of(content, 'Objects that are never found') == [
        ['3', '&lt;3&gt;.png', '5', 'cat', '50', '10', NMS, 'why 5'],
        ['2', '&lt;2&gt;.png', '4', 'cat', '40', '10', ANCHOR, 'why 4'],
    ]


def test_in_a_browser(browser, page, tmp_path):
    browser.check(page)
    browser.open(page)
    assert browser.run('return [...document.querySelectorAll("table a")].map(a => a.textContent)') == [
        'a',
        'b',
        'c <3>',
    ]
    rows = browser.count('section:nth-of-type(2) tbody tr')
    browser.find('input[value="found now"]').click()
    assert browser.count('section:nth-of-type(2) tbody tr') == rows - 3  # one in each table
    browser.run('document.querySelectorAll("table a")[2].click()')
    assert browser.run('return document.title') == 'one trace'


def test_many_moves_and_misses(tmp_path, monkeypatch):
    """The largest are shown, and the captions say so."""
    monkeypatch.setattr(comparing, 'MOVES', 2)
    monkeypatch.setattr(comparing, 'LISTED', 1)
    folders = {name: write_trace(tmp_path / name, stages) for name, stages in (('a', A), ('b', B))}
    content = write_comparison_page(folders, tmp_path / 'page.html').read_text()
    assert len(table_of(content, 'Moves from a to b, the 2 largest of 3')) == 2
    assert [row[2] for row in table_of(content, 'The 1 largest of 2 objects that are never found')] == ['5']


def test_other_objects_in_part(tmp_path):
    """Shares are of all objects of a trace, moves of the shared ones."""
    folders = {'a': write_trace(tmp_path / 'a', A), 'b': write_trace(tmp_path / 'b', {2: FOUND, 5: NMS, 9: NMS})}
    content = write_comparison_page(folders, tmp_path / 'page.html').read_text()
    assert 'a has 6 objects, of which 2 are in all traces.' in content and 'b has 3 objects, of which 2' in content
    assert 'Of the 0 objects that a found, b lost 0. Of the 2 objects that a lost, b found 1.' in content
    assert 'Of 2 objects, 0 are found in every trace, 1 in some, and 1 in none.' in content
    percents = {row[0]: row[2:5:2] for row in table_of(content, SHARES)}
    assert percents[NMS] == ['0.0', '66.7']
    assert [row[2] for row in table_of(content, 'Objects that are never found')] == ['5']


def test_stages_of_another_detector(tmp_path):
    one_stage = ('anchor top-k', BACKGROUND, FOUND)
    folders = {
        'two': write_trace(tmp_path / 'two', [NMS, FOUND]),
        'one': write_trace(tmp_path / 'one', ['anchor top-k', FOUND], names=one_stage),
    }
    content = write_comparison_page(folders, tmp_path / 'page.html').read_text()
    assert [row[0] for row in table_of(content, SHARES)] == [ANCHOR, NMS, BACKGROUND, 'anchor top-k', FOUND]


def test_without_objects(tmp_path):
    folders = {name: write_trace(tmp_path / name, [], page=False) for name in 'ab'}
    content = write_comparison_page(folders, tmp_path / 'page.html').read_text()
    assert 'Of 0 objects' in content and '<a href="a' not in content


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(iou=0.75), 'a was traced with --iou 0.5, and b with 0.75: trace both with the same --iou'),
        (dict(min_size=4), 'a was traced with --min-size 8, and b with 4'),
        (dict(top=1), 'a and b have no object in common: trace both on the same data'),
        (dict(stages={20: FOUND}), 'a and b have no object in common: trace both on the same data'),
    ],
)
def test_what_cannot_be_compared(tmp_path, change, words):
    folders = {'a': write_trace(tmp_path / 'a', A), 'b': write_trace(tmp_path / 'b', **{'stages': B, **change})}
    with pytest.raises(ConfigError, match=words):
        write_comparison_page(folders, tmp_path / 'page.html')


def test_folders_that_are_no_traces(tmp_path):
    folders = {name: write_trace(tmp_path / name, A) for name in 'ab'}
    with pytest.raises(ConfigError, match='1 trace to compare: give two or more'):
        write_comparison_page({'a': tmp_path / 'a'}, tmp_path / 'page.html')
    text = (tmp_path / 'b/objects.csv').read_text()
    (tmp_path / 'b/objects.csv').write_text(text[: text.rindex('\n6,') + 1])
    with pytest.raises(DataError, match='do not count the same objects: trace b again'):
        write_comparison_page(folders, tmp_path / 'page.html')
    (tmp_path / 'b/objects.csv').unlink()
    with pytest.raises(DataError, match='objects.csv cannot be read .*: trace b again'):
        write_comparison_page(folders, tmp_path / 'page.html')
    with pytest.raises(DataError, match='is no trace'):
        write_comparison_page({**folders, 'b': tmp_path}, tmp_path / 'page.html')


def test_names_of_checkpoints():
    assert checkpoint_names(['w/epoch_1.pth', 'https://host/best.v2.pt']) == ['epoch_1', 'best.v2.pt']
    assert checkpoint_names(['w/a/epoch_1.pth', 'w/b/epoch_1.pth', 'w/b/x.pth']) == ['a/epoch_1', 'b/epoch_1', 'b/x']
    with pytest.raises(ConfigError, match='1 checkpoint to compare: give two or more'):
        checkpoint_names(['a.pth'])
    with pytest.raises(ConfigError, match='a.pth would be compared with itself: give different'):
        checkpoint_names(['a.pth', 'x/../a.pth'])


def test_tracing_checkpoints(tmp_path, monkeypatch):
    """Each in its own folder beside the page, with the given options."""
    asked = []

    def trace(cfg, checkpoint, out, **options):
        asked.append((cfg.pop('name'), checkpoint, out, options))  # it may change the config
        write_trace(out, A, checkpoint=checkpoint, page=False)

    monkeypatch.setattr(making, 'trace_objects', trace)
    monkeypatch.setattr(making, 'write_trace_page', lambda folder, out: out.write_text(f'page of {folder.name}'))
    out = trace_checkpoints({'name': 'own'}, ['w/epoch_1.pth', 'w/epoch_2.pth'], tmp_path / 'trace/page.html', iou=0.75)
    assert asked == [
        ('own', f'w/{name}.pth', tmp_path / 'trace' / name, {'iou': 0.75}) for name in ('epoch_1', 'epoch_2')
    ]
    assert '<a href="epoch_2/trace.html">epoch_2</a>' in out.read_text()
    assert (tmp_path / 'trace/epoch_2/trace.html').read_text() == 'page of epoch_2'


def test_an_annotation_that_stands_twice(tmp_path):
    """Each counts, the first with the first."""
    folders = {name: write_trace(tmp_path / name, [FOUND, stage]) for name, stage in (('a', NMS), ('b', FOUND))}
    for folder in folders.values():
        head, first, second = (folder / 'objects.csv').read_text().splitlines()
        second = first.replace(FOUND, NMS if NMS in second else FOUND)
        (folder / 'objects.csv').write_text('\n'.join([head, first, second]))
    content = write_comparison_page(folders, tmp_path / 'page.html').read_text()
    assert table_of(content, 'Moves from a to b, the largest first') == [[NMS, FOUND, '1']]
    assert 'Of 2 objects, 1 are found in every trace, 1 in some, and 0 in none.' in content


def test_labels_are_moved_apart():
    places = spread(np.array([0.1, 0.12, 0.5, 0.99, 1.0]), 0.1)
    np.testing.assert_allclose(places, [0.1, 0.2, 0.5, 0.9, 1.0])
