"""Ctrl-C while a tool starts: importing PyTorch takes seconds, and nothing is there yet that must be left whole."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

#: Exit code after Ctrl-C, as shells report it: 128 + SIGINT.
INTERRUPTED = 130


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Around the imports of a tool: Ctrl-C ends the process with one word. Later ``run_tool`` reports it.

    An exception instead would be a traceback, or abort in compiled code. SIGINT stays ignored if it was ignored.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b'Interrupted\n')
    os._exit(INTERRUPTED)
