"""Timing several things side by side, and tables of the figures."""

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
    """Seconds of several runs of one thing."""

    all: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.all)

    @property
    def spread(self) -> str:
        return f'{min(self.all):.3g}-{max(self.all):.3g}'


def seconds(run: Run, device: torch.device) -> float:
    """How long ``run`` takes, to the end of what it starts on a GPU."""
    if device.type == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def alternate(sides: Mapping[Any, Run], rounds: int, device: torch.device, warmup: int = 1) -> dict[Any, Times]:
    """Every round runs each side once, in turn, so that a neighbour's load falls on all of them."""
    found: dict[Any, list[float]] = {name: [] for name in sides}
    with Bar('Timing', (warmup + rounds) * len(sides), delay=2) as bar:
        for number in range(warmup + rounds):
            for name, run in sides.items():
                time_ = seconds(run, device)
                found[name] += [time_] if number >= warmup else []
                bar.advance()
    return {name: Times(times) for name, times in found.items()}


def machine(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == 'cuda':
        return f'torch {torch.__version__} on {torch.cuda.get_device_name(device)}'
    cpu = f'{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}'
    return f'torch {torch.__version__} on {cpu}'


def process_mib(key: str, path: Path = Path('/proc/self/status')) -> float:
    """MiB that a line of a file below /proc gives in KiB."""
    (line,) = (line for line in path.read_text().splitlines() if line.startswith(f'{key}:'))
    return int(line.split()[1]) / 1024


@dataclass
class Report:
    """A heading, a table whose rows are dicts with the same keys, and remarks below it; rows are printed as they come.

    ``failed`` makes the exit code 1.
    """

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: bool = False

    def add(self, row: dict[str, Any]) -> None:
        """A row; the first column is to the left, numbers have three figures."""
        if not self.rows:
            print(f'{self.title}\n\n{_line(row)}\n{_line(["---", *["---:"] * (len(row) - 1)])}')
        self.rows.append(row)
        print(_line(map(_text, row.values())), flush=True)

    def end(self, path: str | None) -> None:
        """Print the remarks, and write all as JSON where there is a path."""
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
