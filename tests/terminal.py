"""Terminals for what is under test: one in this process, and one for commands."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.signals import heed_ctrl_c

WIDTH = 250
CONTROL = re.compile(r'\x1b\[[0-9;?]*[a-zA-Z]')
HIDE, SHOW = '\x1b[?25l', '\x1b[?25h'
VARIABLES = ('COLUMNS', 'LINES', 'NO_COLOR', 'FORCE_COLOR')


def lines(raw: str) -> list[str]:
    """All that ever stood in a line, without colours and blanks at the ends; a bar counts whenever it is drawn."""
    return [CONTROL.sub('', line).strip() for line in re.split('[\r\n]+', raw)]


class Screen(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        return lines(self.getvalue())


@contextlib.contextmanager
def screen(*, stdout: io.StringIO | None = None, stderr: io.StringIO | None = None) -> Iterator[Screen]:
    """The streams of this process are one terminal, except those given."""
    shown, before = Screen(), {name: os.environ.pop(name, None) for name in ('TERM', *VARIABLES)}
    os.environ.update(TERM='xterm', COLUMNS=str(WIDTH))
    try:
        with contextlib.redirect_stdout(stdout or shown), contextlib.redirect_stderr(stderr or shown):
            yield shown
            assert (sys.stdout, sys.stderr) == (stdout or shown, stderr or shown)  # nobody holds them any more
    finally:
        os.environ.pop('COLUMNS')
        os.environ.update({name: value for name, value in before.items() if value is not None})


class Shown(NamedTuple):
    """What a command wrote to its terminal, control sequences included, and its exit code."""

    raw: str
    code: int


def _take_terminal() -> None:
    """So that Ctrl-C reaches the command."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    heed_ctrl_c()


def run(command: Sequence[str | Path], cwd: Path, *, ctrl_c_after: str = '') -> Shown:
    """Run a command at a terminal of its own, and type Ctrl-C there once ``ctrl_c_after`` has been shown."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 50, WIDTH, 0, 0))
    process = subprocess.Popen(
        [*map(str, command)],
        cwd=cwd,
        env={**{k: v for k, v in os.environ.items() if k not in VARIABLES}, 'TERM': 'xterm', 'OMP_NUM_THREADS': '1'},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(slave)
    shown, typed = b'', not ctrl_c_after
    with contextlib.suppress(OSError):  # the other end was closed
        while part := os.read(master, 4096):
            shown += part
            if not typed and ctrl_c_after.encode() in shown:
                os.write(master, b'\x03')
                typed = True
    code = process.wait(timeout=60)
    os.close(master)
    return Shown(shown.decode(), code)
