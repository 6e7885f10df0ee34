"""Bars with an ETA at the foot of the terminal, for work that a person waits for."""

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
REDRAW = 0.5  # seconds; drawing takes milliseconds of the thread that works


class _Eta(TimeRemainingColumn):
    """The estimate that a task brings along, or else rich's."""

    def render(self, task: Task) -> Text:
        seconds = task.fields['eta']
        known = seconds is not None
        time = Text(str(timedelta(seconds=int(seconds))), 'progress.remaining') if known else super().render(task)
        return Text('ETA ') + time


class _Display(Progress):
    """All bars of the process, and the notes below them.

    No thread redraws it: data loaders fork, and a child would inherit the lock of a thread that it does not have.
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
            redirect_stdout=sys.stdout.isatty(),  # what goes to a file must get there
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, one below another, then the notes."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.visible and task.fields['note']:
                yield Text(task.fields['note'])

    def draw(self) -> None:
        """Show the bars as they are now, unless that was just done."""
        if not self.live.is_started:
            self.start()
            self.console.show_cursor(True)  # a process that is killed could not show it again
        elif time.monotonic() - self.drawn < REDRAW:
            return
        self.refresh()
        self.drawn = time.monotonic()


class Bar:
    """A bar for work of several parts; there is none where stderr is no terminal.

    Bars that are open at the same time stand below each other. What is printed meanwhile stands above them. A bar is
    closed by ``close``, or at the end of a ``with``, and leaves nothing behind.

    Args:
        description: in front of the bar.
        total: number of the parts, None if it is not known.
        delay: seconds before the bar appears, for work that may be done by then.
    """

    _display: ClassVar[_Display | None] = None

    def __init__(self, description: str, total: float | None = None, *, delay: float = 0.0):
        self._due = time.monotonic() + delay
        self._task: TaskID | None = None
        if not sys.stderr.isatty() or not Console(stderr=True).is_interactive:
            return
        Bar._display = Bar._display or _Display()
        self._task = Bar._display.add_task(description, total=total, visible=False, eta=None, note='')
        self.advance(0)

    def advance(self, count: float = 1, **changes: Any) -> None:
        """``count`` more parts are done; ``changes`` may be a new ``description``, ``note`` (a text under the bars) or
        ``eta`` (seconds, instead of an estimate from the parts done so far)."""
        display = Bar._display
        if display is None or self._task is None:
            return
        is_due = time.monotonic() >= self._due
        display.update(self._task, advance=count, visible=is_due, **changes)
        if is_due:
            display.draw()

    def close(self) -> None:
        """Take the bar away."""
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
    """A bar in bytes, with speed and ETA; there is none where stderr is no terminal."""
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal)
