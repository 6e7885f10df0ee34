"""Timing several functions in turn, and tables of the results."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from frdet.progress import Bar

Run = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of several runs of one function."""

    all: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.all)

    @property
    def spread(self) -> str:
        return f'{min(self.all):.3g}-{max(self.all):.3g}'


def seconds(run: Run, device: torch.device) -> float:
    """Seconds of ``run``, including the work that it starts on a GPU."""
    if device.type == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def alternate(sides: Mapping[Any, Run], rounds: int, device: torch.device, warmup: int = 1) -> dict[Any, Times]:
    """Run each side once in every round, so that other load on the machine affects all sides."""
    found: dict[Any, list[float]] = {name: [] for name in sides}
    with Bar('Timing', (warmup + rounds) * len(sides), delay=2) as bar:
        for number in range(warmup + rounds):
            for name, run in sides.items():
                time_ = seconds(run, device)
                found[name] += [time_] if number >= warmup else []
                bar.advance()
    return {name: Times(times) for name, times in found.items()}


def machine(device: torch.device) -> str:
    """The software and hardware of a measurement."""
    if device.type == 'cuda':
        return f'torch {torch.__version__} on {torch.cuda.get_device_name(device)}'
    cpu = f'{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}'
    return f'torch {torch.__version__} on {cpu}'


def process_mib(key: str, path: Path = Path('/proc/self/status')) -> float:
    """A number of KiB in a file below /proc, in MiB."""
    (line,) = (line for line in path.read_text().splitlines() if line.startswith(f'{key}:'))
    return int(line.split()[1]) / 1024


@dataclass
class Report:
    """A title, a table whose rows are dicts with the same keys, and notes. Rows are printed at once.

    ``failed`` makes the exit code 1.
    """

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: bool = False

    def add(self, row: dict[str, Any]) -> None:
        """Add and print a row. The first column is left-aligned, and floats have three digits."""
        if not self.rows:
            print(f'{self.title}\n\n{_line(row)}\n{_line(["---", *["---:"] * (len(row) - 1)])}')
        self.rows.append(row)
        print(_line(map(_text, row.values())), flush=True)

    def end(self, path: str | None) -> None:
        """Print the notes, and write everything as JSON if there is a path."""
        for note in self.notes:
            print(f'\n{note}')
        if path:
            Path(path).write_text(json.dumps({'title': self.title, 'rows': self.rows, 'notes': self.notes}, indent=1))


def _line(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'
    return '' if value is None else str(value)
