import io
import re
import sys
import threading

import pytest

from frdet.progress import Bar, track
from tests.terminal import HIDE, SHOW, screen


@pytest.fixture(autouse=True)
def _drawn_at_every_change(monkeypatch):
    monkeypatch.setattr('frdet.progress.REDRAW', 0)
    yield
    assert Bar._display is None


def test_items_pass_through():
    assert list(track([3, 1, 2], 'Counting')) == [3, 1, 2]
    assert list(track((i for i in range(3)), 'Counting', total=3)) == [0, 1, 2]


def test_a_bar_shows_parts_done_and_eta():
    with screen() as shown:
        assert list(track(range(4), 'Counting', delay=0)) == [0, 1, 2, 3]
    for done in range(5):
        assert any(re.fullmatch(rf'Counting .* {done}/4 ETA (-:--:--|0:00:0[01])', line) for line in shown.lines)


def test_a_bar_appears_only_after_the_delay():
    with screen() as shown:
        list(track(range(4), 'Counting', delay=60))
    assert shown.getvalue() == ''


def test_no_bar_in_a_file_or_where_none_can_be_drawn(monkeypatch):
    file = io.StringIO()
    with screen(stderr=file) as shown:
        monkeypatch.setenv('FORCE_COLOR', '1')  # colours are no terminal
        list(track(range(4), 'Counting', delay=0))
        monkeypatch.delenv('FORCE_COLOR')
    assert file.getvalue() == shown.getvalue() == ''
    with screen() as shown:
        monkeypatch.setenv('TERM', 'dumb')  # it cannot move its cursor
        list(track(range(4), 'Counting', delay=0))
    assert shown.getvalue() == ''


def test_a_given_eta_and_a_note():
    with screen() as shown, Bar('Training', 10) as bar:
        bar.advance(eta=3723.4, note='loss 1.5 [red]', description='Epoch [1]')
    assert any(re.fullmatch(r'Epoch \[1\] .* 1/10 ETA 1:02:03', line) for line in shown.lines)  # 3600 + 120 + 3
    assert 'loss 1.5 [red]' in shown.lines


def test_bars_stand_below_each_other():
    with screen() as shown, Bar('Outer', 2) as outer:
        for _ in track(range(2), 'Inner', delay=0):
            pass
        outer.advance()
    number = next(i for i, line in enumerate(shown.lines) if line.startswith('Inner'))
    assert shown.lines[number - 1].startswith('Outer')
    last = max(i for i, line in enumerate(shown.lines) if line.startswith('Outer'))
    assert ' 1/2 ' in shown.lines[last] and not any(line.startswith('Inner') for line in shown.lines[last:])


def test_printed_lines_are_whole_and_above():
    with screen() as shown:
        for i in track(range(2), 'Counting', delay=0):
            print(f'line {i}')
            print(f'error {i}', file=sys.stderr)
    for text in ('line 0', 'error 0', 'line 1', 'error 1'):
        assert shown.lines[shown.lines.index(text) + 1].startswith('Counting')


def test_what_goes_to_a_file_gets_there():
    file = io.StringIO()
    with screen(stdout=file) as shown:
        for i in track(range(2), 'Counting', delay=0):
            print(i)
    assert file.getvalue() == '0\n1\n' and 'Counting' in shown.getvalue()


def test_an_error_takes_the_bar_away():
    def broken():
        yield 1
        raise RuntimeError('broken')

    with screen() as shown, pytest.raises(RuntimeError, match='broken'):
        list(track(broken(), 'Counting', delay=0))
    assert shown.getvalue().rindex(SHOW) > shown.getvalue().rindex(HIDE)


def test_a_killed_process_leaves_the_cursor():
    with screen() as shown, Bar('Working', 2):
        assert shown.getvalue().rindex(SHOW) > shown.getvalue().rindex(HIDE)


def test_no_thread_holds_a_lock_across_a_fork():
    before = threading.active_count()
    with screen():
        for _ in track(range(2), 'Counting', delay=0):
            assert threading.active_count() == before
