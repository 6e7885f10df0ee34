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


def test_names_that_left_a_package():
    from frdet.insight.browse import browse_dataset

    with pytest.warns(FutureWarning, match=r'browse_dataset is frdet.insight.browse.browse_dataset now'):
        from frdet.visualization import browse_dataset as former
    assert former is browse_dataset
    with pytest.warns(FutureWarning, match=r'frdet.engine.hooks.ReportHook is frdet.insight.ReportHook now'):
        from frdet.engine.hooks import ReportHook
    assert ReportHook.__module__ == 'frdet.insight.hook'
    with pytest.raises(ImportError, match='cannot import name'):
        from frdet.visualization import never  # noqa: F401
