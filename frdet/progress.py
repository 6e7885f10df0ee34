"""Bars with an ETA at the bottom of the terminal, for work that a person waits for."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

T = TypeVar('T')
REDRAW = 0.5  # seconds; drawing takes milliseconds from the work


class _Eta(TimeRemainingColumn):
    """The estimate that a task has, or else rich's estimate."""

    def render(self, task: Task) -> Text:
        if (seconds := task.fields['eta']) is None:
            return Text('ETA ') + super().render(task)
        return Text('ETA ') + Text(str(timedelta(seconds=int(seconds))), 'progress.remaining')


class _Display(Progress):
    """All bars of the process, and the notes below them.

    No thread redraws it: a data loader's worker is forked, and would inherit a lock without the thread that holds it.
    """

    def __init__(self) -> None:
        self.drawn = 0.0
        super().__init__(
            TextColumn('{task.description}', markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Eta(),
            console=Console(stderr=True),
            auto_refresh=False,
            speed_estimate_period=600,
            redirect_stdout=sys.stdout.isatty(),  # output to a file must not be redirected
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, one below another, then the notes."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.visible and task.fields['note']:
                yield Text(task.fields['note'])

    def draw(self) -> None:
        """Redraw the bars, unless they were just drawn."""
        if not self.live.is_started:
            self.start()
            self.console.show_cursor(True)  # a process that is killed could not show it again
        elif time.monotonic() - self.drawn < REDRAW:
            return
        self.refresh()
        self.drawn = time.monotonic()


class Bar:
    """A bar for work of several parts. Nothing is drawn if stderr is not a terminal.

    Several open bars are drawn below each other, and printed text appears above them. ``close``, or the end of a
    ``with``, removes the bar.

    Args:
        description: text before the bar.
        total: number of parts; None if it is unknown.
        delay: seconds before the bar appears; short work then shows none.
    """

    _display: ClassVar[_Display | None] = None  # while a bar is open
    _task: TaskID | None = None  # while this bar is open

    def __init__(self, description: str, total: float | None = None, *, delay: float = 0.0):
        self._due = time.monotonic() + delay
        if sys.stderr.isatty() and Console(stderr=True).is_interactive:
            Bar._display = Bar._display or _Display()
            self._task = Bar._display.add_task(description, total=total, visible=False, eta=None, note='')
            self.advance(0)

    def advance(self, count: float = 1, **changes: Any) -> None:
        """``count`` more parts are done. ``changes`` are a new ``description``, ``note`` (text under the bars) or
        ``eta`` (seconds, instead of an estimate from the finished parts)."""
        display = Bar._display
        if display is None or self._task is None:
            return
        is_due = time.monotonic() >= self._due
        display.update(self._task, advance=count, visible=is_due, **changes)
        if is_due:
            display.draw()

    def close(self) -> None:
        """Remove the bar."""
        display = Bar._display
        if display is None or self._task is None:
            return
        display.remove_task(self._task)
        self._task = None
        if not display.tasks:
            display.stop()
            Bar._display = None
        elif display.live.is_started:
            display.refresh()

    def __enter__(self) -> 'Bar':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def track(items: Iterable[T], description: str, *, total: int | None = None, delay: float = 2.0) -> Iterator[T]:
    """``items``, with a bar on the terminal once they have taken more than ``delay`` seconds."""
    total = len(items) if total is None and isinstance(items, Sized) else total
    with Bar(description, total, delay=delay) as bar:
        for item in items:
            yield item
            bar.advance()


def download_bar() -> Progress:
    """A bar in bytes, with speed and ETA. Nothing is drawn if stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn('{task.description}'), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
