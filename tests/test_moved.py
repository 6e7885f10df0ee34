import importlib
import sys

import pytest

from frdet import moved


@pytest.fixture
def former(monkeypatch):
    monkeypatch.setitem(moved.MOVED, 'frdet.former', 'frdet.structures')
    yield 'frdet.former'
    for name in [name for name in sys.modules if name.startswith('frdet.former')]:
        del sys.modules[name]


def test_a_former_name_gives_the_module_and_says_where_it_is(former):
    with pytest.warns(FutureWarning, match=r'frdet.former is frdet.structures now'):
        module = importlib.import_module(former)
    assert module is sys.modules['frdet.structures']
    assert module.__name__ == module.__spec__.name == 'frdet.structures'


def test_modules_inside_a_package_that_moved(former):
    with (
        pytest.warns(FutureWarning, match=r'frdet.former is frdet.structures now'),
        pytest.warns(FutureWarning, match=r'frdet.former.boxes is frdet.structures.boxes now'),
    ):
        module = importlib.import_module(f'{former}.boxes')
    assert module is sys.modules['frdet.structures.boxes']


@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_every_name_in_the_table_leads_somewhere():
    for name, now in moved.MOVED.items():
        assert importlib.import_module(name) is importlib.import_module(now)


def test_what_never_existed_is_not_found():
    with pytest.raises(ModuleNotFoundError, match=r'frdet\.never'):
        importlib.import_module('frdet.never')
