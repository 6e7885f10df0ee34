"""The runs of a study as they go: a table on a terminal, else a line at each change."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from frdet.apis.ablation.study import Job, Study
from frdet.evaluation.coco_metric import is_defined

#: Colours of the states; where not all runs have room, runs of the first states are shown.
STATES = {'running': 'cyan', 'stopped': 'red', 'finished': 'green', 'waiting': 'dim'}
NOTES = 3  # runs whose last words are shown
AROUND = 3 + NOTES  # lines of the terminal that are no runs


class Board:
    """Shows the state of each run, by what their files say: any process may show any study.

    On a terminal it is a table, which is drawn on stderr at each ``update``. Elsewhere ``update`` prints a line for
    each run whose state has changed. ``close``, or the end of a ``with``, leaves the last table standing.
    """

    def __init__(self, study: Study):
        self.metric = study.metric
        trials = {variant: study.trial(variant) for variant in study.variants}
        self.runs = [_Run(job, trials[job.variant], study.metric) for job in study.jobs()]
        self.live: Live | None = None
        console = Console(stderr=True)
        if sys.stderr.isatty() and console.is_interactive:
            # No thread redraws it, see frdet.progress. Output to a file must not be redirected.
            self.live = Live(console=console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())

    def update(self) -> None:
        """Read what is new, and show it."""
        changed = [run for run in self.runs if run.read()]
        if self.live is None:
            for run in changed:
                print(run.line, flush=True)
            return
        if not self.live.is_started:
            self.live.start()
            self.live.console.show_cursor(True)  # a process that is killed could not show it again
        self.live.update(self._table(self.live.console.height), refresh=True)

    def close(self) -> None:
        """Show the last states, and end the display."""
        self.update()
        if self.live is not None:
            self.live.stop()

    def __enter__(self) -> 'Board':
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _table(self, height: int) -> RenderableType:
        order = {state: rank for rank, state in enumerate(STATES)}
        shown = sorted(self.runs, key=lambda run: order[run.state])[: max(height - AROUND, 1)]
        texts = [Column(name, no_wrap=True) for name in ('run', 'state')]  # bars become shorter where there is no room
        numbers = [Column(name, no_wrap=True, justify='right') for name in ('iteration', 'ETA', escape(self.metric))]
        table = Table(*texts, '', *numbers, box=None, pad_edge=False)
        for run in self.runs:
            if run in shown:
                table.add_row(*run.cells)
        stopped = [run for run in self.runs if run.state == 'stopped'][:NOTES]
        notes = [Text(run.line, 'red', no_wrap=True, overflow='ellipsis') for run in stopped]
        return Group(table, *notes, Text(self._summary()))

    def _summary(self) -> str:
        counts = {state: sum(run.state == state for run in self.runs) for state in STATES}
        said = f'{len(self.runs)} runs: ' + ', '.join(f'{count} {state}' for state, count in counts.items() if count)
        left = sum(run.left for run in self.runs if run.state != 'finished')
        # The runs that are trained at once share what is left.
        eta = _duration(left / counts['running']) if counts['running'] else ''
        return f'{said}; ETA {eta}' if eta else said


class _Run:
    """What is known of a run; ``read`` reads only what its log has gained.

    Attributes:
        state: as ``Job.state``.
        iteration: the last one that was logged.
        value: the metric value of the last validation; None without any.
        trained: seconds of the logged iterations.
        words: the last line that it printed when its state changed.
    """

    def __init__(self, job: Job, trial: dict[str, Any], metric: str):
        self.job = job
        self.trial = trial
        self.metric = metric
        self.state = 'waiting'
        self.iteration = 0
        self.value: float | None = None
        self.trained = 0.0
        self.words: list[str] = []
        self._seconds: float = trial.get('seconds', math.nan)  # of an iteration
        self._read: dict[Path, int] = {}  # bytes of each piece of the log

    def read(self) -> bool:
        """Whether the state has changed."""
        before, self.state = self.state, self.job.state
        if self.state == 'running' or self.state != before:
            for record in self._new_records():
                self._take(record)
        if self.state != before:
            self._take({'iter': self.job.length or self.iteration})  # not every iteration is logged
            self.words = self.job.last_words(1)
        return self.state != before

    def _new_records(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.job.work_dir.glob('*/vis_data/scalars.json')):
            with open(path, 'rb') as file:
                file.seek(self._read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b'\n')  # the last line may be half written
            self._read[path] = self._read.get(path, 0) + len(whole + newline)
            for line in whole.splitlines():
                with contextlib.suppress(ValueError):  # the run was killed while it wrote this line
                    yield json.loads(line)

    def _take(self, record: dict[str, Any]) -> None:
        if 'iter' in record:
            self._seconds = record.get('time', self._seconds)
            if (gained := record['iter'] - self.iteration) > 0:
                self.trained += gained * self._seconds
            self.iteration = record['iter']
        elif is_defined(self.metric, value := record.get(self.metric)):
            self.value = value

    @property
    def left(self) -> float:
        """Seconds to its end; NaN if they are not known."""
        planned = self.trial.get('iterations') or math.nan
        validations = math.prod(self.trial.get(key) or 0 for key in ('validations', 'val_images', 'val_seconds'))
        return max(1 - self.iteration / planned, 0) * (planned * self._seconds + validations)

    @property
    def line(self) -> str:
        """Its state as a line of text."""
        said = f'{self.job.name}: {self.state}'
        if self.state == 'finished':
            value = '' if self.value is None else f', {self.metric} {self.value:.3f}'
            time = f', {_duration(self.trained)} of training' if self.trained > 0 else ''  # it may be NaN
            return said + value + time
        return ': '.join([said, *self.words]) if self.state == 'stopped' else said

    @property
    def cells(self) -> list[RenderableType]:
        """Its row of the table."""
        planned = self.trial.get('iterations')
        return [
            Text(self.job.name),
            Text(self.state, STATES[self.state]),
            ProgressBar(planned, self.iteration, 16, complete_style='cyan', finished_style='green') if planned else '',
            f'{self.iteration:,} of {planned:,}' if planned else f'{self.iteration:,}',
            _duration(self.left) if self.state == 'running' else '',
            '' if self.value is None else f'{self.value:.3f}',
        ]


def _duration(seconds: float) -> str:
    return '' if math.isnan(seconds) else str(timedelta(seconds=int(seconds)))
