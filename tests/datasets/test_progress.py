import io

import pytest
from rich.console import Console

from frdet.datasets import progress


def test_items_pass_through():
    assert list(progress.track([3, 1, 2], 'Counting')) == [3, 1, 2]
    assert list(progress.track((i for i in range(3)), 'Counting', total=3)) == [0, 1, 2]


def output_of(monkeypatch, delay):
    console = Console(force_terminal=True, record=True, width=80, file=io.StringIO())
    monkeypatch.setattr(progress, 'Console', lambda **_: console)
    list(progress.track(range(4), 'Counting', delay=delay))
    return console.export_text()


def test_a_bar_appears_only_after_the_delay(monkeypatch):
    assert 'Counting' in output_of(monkeypatch, delay=-1)
    assert '4/4' in output_of(monkeypatch, delay=-1)
    assert output_of(monkeypatch, delay=60) == ''


def test_an_error_passes_through_a_shown_bar(monkeypatch):
    monkeypatch.setattr(progress, 'Console', lambda **_: Console(force_terminal=True, file=io.StringIO()))

    def broken():
        yield 1
        raise RuntimeError('broken')

    with pytest.raises(RuntimeError, match='broken'):
        list(progress.track(broken(), 'Counting', delay=-1))
