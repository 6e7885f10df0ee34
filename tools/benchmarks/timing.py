"""What all measurements share: timing several functions in turn, processes of their own, and tables."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from frdet.progress import track

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device('cpu')
Run = Callable[[], object]


class Times(list[float]):
    """Seconds of several runs of one function."""

    @property
    def median(self) -> float:
        return statistics.median(self)

    @property
    def spread(self) -> str:
        return f'{min(self):.3g}-{max(self):.3g}'

    @property
    def cells(self) -> dict[str, Any]:
        """Two columns of a table."""
        return {'median s': self.median, 'min-max s': self.spread}


def seconds(run: Run, device: torch.device) -> float:
    """Seconds of ``run``, including the work that it starts on a GPU."""
    synchronize = torch.cuda.synchronize if device.type == 'cuda' else torch.cpu.synchronize
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def alternate(sides: Mapping[Any, Run], rounds: int, device: torch.device, warmup: int = 1) -> dict[Any, Times]:
    """Run each side once in every round, so that other load on the machine affects all sides."""
    found = {name: Times() for name in sides}
    runs = [(number, name) for number in range(warmup + rounds) for name in sides]
    for number, name in track(runs, 'Timing'):
        took = seconds(sides[name], device)
        if number >= warmup:
            found[name].append(took)
    return found


def run_python(code: str, folder: str | Path = ROOT) -> Any:
    """The JSON that ``code`` prints in its last line, run by a new process that imports from where this one does."""
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'A process of the measurement failed:\n{code}\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def machine(device: torch.device) -> str:
    """The software and hardware of a measurement."""
    found = f'{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}'
    if device.type == 'cuda':
        found = torch.cuda.get_device_name(device)
    return f'torch {torch.__version__} on {found}'


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
