"""A progress bar where a person waits for an evaluation."""

import atexit
import logging
import sys
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from frdet.registry import HOOKS


@HOOKS.register_module()
class EvalProgressHook(Hook):
    """Shows a bar on a terminal during validation and testing; does nothing where the output goes to a file."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._streams: list[tuple[logging.StreamHandler, Any]] = []

    def before_val_epoch(self, runner: Runner) -> None:
        """Show the bar."""
        self._start(runner, 'Validating', len(runner.val_dataloader))

    def before_test_epoch(self, runner: Runner) -> None:
        """Show the bar."""
        self._start(runner, 'Testing', len(runner.test_dataloader))

    def after_val_iter(self, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._advance()

    def after_test_iter(self, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._advance()

    def _start(self, runner: Runner, what: str, total: int) -> None:
        console = Console(stderr=True)
        if not is_main_process() or not console.is_terminal:
            return
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True)
        self._bar.add_task(what, total=total)
        self._bar.start()
        atexit.register(self._stop)  # the bar hides the cursor, also where an error ends the run
        # While a bar is shown sys.stdout writes above it; the logger holds the stream of before.
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler:
                self._streams.append((handler, handler.setStream(sys.stdout)))

    def _advance(self) -> None:
        if self._bar is not None:
            task = self._bar.tasks[0]
            self._bar.advance(task.id)
            if task.finished:
                self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        while self._streams:
            handler, stream = self._streams.pop()
            handler.setStream(stream)
        atexit.unregister(self._stop)
