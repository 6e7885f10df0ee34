"""A bar on a terminal, nothing in a file."""

import os
import pty
import subprocess
import sys

from tests.engine import toy

SCRIPT = """
import sys
from tests.engine import toy
toy.runner(sys.argv[1]).test()
"""


def test_shown_on_a_terminal(tmp_path):
    """stderr is a terminal: the bar is drawn there and gone at the end, the log keeps its lines."""
    master, slave = pty.openpty()
    env = {**os.environ, 'TERM': 'xterm', 'COLUMNS': '100'}
    command = [sys.executable, '-c', SCRIPT, str(tmp_path)]
    process = subprocess.Popen(command, cwd=toy.ROOT, stderr=slave, stdout=subprocess.PIPE, env=env)
    os.close(slave)
    shown = b''
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        shown += part
    output = process.communicate(timeout=60)[0].decode()
    os.close(master)
    assert process.returncode == 0, shown.decode()
    assert b'Testing' in shown and b'/4' in shown
    assert shown.count(b'\x1b[?25l') == shown.count(b'\x1b[?25h') == 1  # the cursor is hidden, and shown again
    assert 'Epoch(test) [4/4]' in output + shown.decode()


def test_silent_without_a_terminal(tmp_path, capfd):
    toy.runner(tmp_path).test()
    assert 'Testing' not in capfd.readouterr().err
