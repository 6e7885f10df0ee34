"""Timing several things side by side, and tables of the figures."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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


@dataclass
class Report:
    """A heading, a table whose rows are dicts with the same keys, and remarks below it."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def print(self) -> None:
        print(f'{self.title}\n')
        if self.rows:
            print('\n'.join(markdown(self.rows)))
        for note in self.notes:
            print(f'\n{note}')

    def write(self, path: str) -> None:
        Path(path).write_text(json.dumps({'title': self.title, 'rows': self.rows, 'notes': self.notes}, indent=1))


def markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table; the first column is to the left, numbers have three figures."""
    columns = list(rows[0])
    lines = [' | '.join(columns), ' | '.join(['---', *['---:'] * (len(columns) - 1)])]
    lines += [' | '.join(_text(row[column]) for column in columns) for row in rows]
    return [f'| {line} |' for line in lines]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'
    return '' if value is None else str(value)
