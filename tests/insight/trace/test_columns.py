"""The objects and their counts, as a page has them."""

from frdet.insight.trace import columns
from frdet.insight.trace.model import OBJECT_COLUMNS, OBJECTS
from frdet.insight.trace.page import write_trace_page
from frdet.insight.trace.sentences import MEANINGS
from tests.insight.trace.made import COUNTS, data_of, make_trace


def test_groups_by_shape_and_crowding(tmp_path):
    """Twice as wide as high is not wide, and an IoU of 0.2 is not below it."""
    splits = {
        split['name']: {name: counts for _, name, counts in split['groups']}
        for split in data_of(write_trace_page(make_trace(tmp_path), tmp_path / 'trace.html'))['splits']
    }
    assert splits['all'] == {'all objects': list(COUNTS.values())}
    shapes = splits['aspect ratio']
    assert {name.split(':')[0]: sum(counts) for name, counts in shapes.items()} == {'wide': 1, 'between': 16, 'tall': 3}
    # wide: 100 x 40. tall: 20 x 60, 20 x 41 and 30 x 90; not 20 x 40.
    assert shapes['tall: h/w above 2'] == [0, 0, 0, 0, 0, 1, 2]
    assert {name: sum(counts) for name, counts in splits['crowding'].items()} == {
        'alone: IoU 0': 12, 'below 0.2': 2, '0.2 to 0.5': 3, 'from 0.5': 3
    }  # fmt: skip


def test_more_objects_than_a_page_holds(tmp_path, monkeypatch):
    """All are counted, every fourth is shown, and those with a picture."""
    monkeypatch.setattr(columns, 'MOST', 6)
    path = write_trace_page(make_trace(tmp_path, cards=(2,)), tmp_path / 'trace.html')
    data = data_of(path)
    assert data['columns']['id'] == ['1', '2', '5', '9', '13', '17']
    assert data['splits'][0]['groups'][0][2] == list(COUNTS.values())
    assert data['pictured'] == [1]
    assert 'The table has 6 of the 20 objects' in path.read_text()


def test_every_number_has_a_meaning():
    numbers = {name for name, kind in OBJECT_COLUMNS.items() if kind is not str}
    assert set(MEANINGS) == numbers - {'left', 'top', 'width', 'height'}


def test_an_id_that_comes_twice(tmp_path):
    """The pictures of the objects after it are theirs."""
    make_trace(tmp_path)
    path = tmp_path / OBJECTS
    lines = path.read_text().splitlines()
    path.write_text('\n'.join([*lines[:3], lines[2], *lines[3:]]))
    data = data_of(write_trace_page(tmp_path, tmp_path / 'trace.html'))
    assert [data['columns']['id'][row] for row in data['pictured']] == ['4', '1']
