"""Signals of processes that tests start."""

import signal


def heed_ctrl_c() -> None:
    """For ``preexec_fn``: the process heeds SIGINT, also where this one ignores it, as a background job of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
