"""Ctrl-C in the first seconds of a tool, while it imports PyTorch."""

import ast
import os
import signal
import sys
from pathlib import Path

import pytest

from frdet.interrupts import starting

TOOLS = sorted((Path(__file__).parents[1] / 'tools').glob('*.py'))


@pytest.fixture(autouse=True)
def _handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_it_ends_the_process_with_one_word(capfd):
    if (child := os.fork()) == 0:
        with starting():
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert capfd.readouterr().err == 'Interrupted\n'


def test_afterwards_it_is_an_exception_again():
    with pytest.raises(ZeroDivisionError), starting():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_it_stays_ignored():
    """As in a background job of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with starting():
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.stem)
def test_each_tool_starts_so(tool):
    """Outside of it a tool imports only Python's own modules, which takes no time."""
    first = [node for node in ast.parse(tool.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {getattr(node, 'module', None) or node.names[0].name for node in first}
    assert 'frdet.interrupts' in names
    assert all(name.partition('.')[0] in sys.stdlib_module_names for name in names - {'frdet.interrupts'})
