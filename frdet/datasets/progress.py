"""A progress bar for work a person waits for."""

import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar('T')


def track(items: Iterable[T], description: str, *, total: int | None = None, delay: float = 2.0) -> Iterator[T]:
    """``items``, with a progress bar on the terminal once they have taken more than ``delay`` seconds."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console)
    task = bar.add_task(description, total=total)
    begin, shown = time.monotonic(), False
    try:
        for item in items:
            if not shown and console.is_terminal and time.monotonic() - begin > delay:
                bar.start()
                shown = True
            yield item
            bar.advance(task)
    finally:
        if shown:
            bar.stop()
