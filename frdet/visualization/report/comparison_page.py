"""Several trainings side by side."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frdet.errors import ConfigError
from frdet.progress import track
from frdet.visualization.page import Page
from frdet.visualization.plots import draw
from frdet.visualization.report import figures
from frdet.visualization.report.run import Run, read_run

#: Figures of the last validation, by the end of their names.
LAST = {
    'bbox_mAP_75': 'AP75',
    'bbox_mAP_s': 'AP_s',
    'bbox_mAP_m': 'AP_m',
    'bbox_mAP_l': 'AP_l',
    'bbox_AR@100': 'AR@100',
}
#: Keys that say where a run was made, not what it computed.
PLACES = ('work_dir', 'visualizer', 'vis_backends', 'resume', 'launcher')


def write_comparison(work_dirs: Sequence[str | Path], out: str | Path) -> Path:
    """Write the page that compares trainings with the first of them.

    Raises:
        ConfigError: there are fewer than two, one is no work folder of a training, or ``out`` cannot be written.
    """
    if len(work_dirs) < 2:
        raise ConfigError(f'{len(work_dirs)} run to compare: give two or more work folders')
    paths = dict(zip(run_names(work_dirs), work_dirs, strict=True))
    runs = {name: read_run(path) for name, path in track(paths.items(), 'Reading the runs', total=len(paths))}
    configs = [flatten(run.config.to_dict()) if run.config is not None else {} for run in runs.values()]
    for run in runs.values():
        run.note_its_end()
    missing = [f'{name}: {sentence}' for name, run in runs.items() for sentence in run.missing]
    base = next(iter(runs))
    page = Page('Comparison of trainings', f'{len(runs)} runs, beside {base}.', warnings=missing)
    section = page.section('Figures', f'Signed numbers are differences to {base}.')
    head, rows = ablation(list(runs.values()))
    section.table(['run', *head], [[name, *row] for name, row in zip(runs, rows, strict=True)], caption='Runs')
    head, rows = last_figures(list(runs.values()))
    if head:
        section.table(
            ['run', *head], [[name, *row] for name, row in zip(runs, rows, strict=True)], caption='Last validation'
        )
    section = page.section('Curves')
    plot = figures.comparison(runs)
    section.plot(draw(plot.paint, size=plot.size, columns=plot.columns), 'Loss and average precision')
    section = page.section('Config', 'Keys whose values differ; a dash stands where a run has no such key.')
    if rows := differences(configs):
        section.table(['key', *runs], rows, caption='Differences of the configs')
    else:
        section.text('The configs are the same, but for the places of data and results.')
    page.write(out)
    return Path(out)


def ablation(runs: Sequence[Run]) -> tuple[list[str], list[list[Any]]]:
    """Head and a row for every run: its figures, and behind the precisions the difference to the first run's."""
    columns = {
        'best AP': [_figure(run, run.best, 'bbox_mAP') for run in runs],
        'last AP': [_figure(run, run.log.val[-1] if run.log.val else None, 'bbox_mAP') for run in runs],
        'last AP50': [_figure(run, run.log.val[-1] if run.log.val else None, 'bbox_mAP_50') for run in runs],
    }
    head: list[str] = []
    cells: list[list[Any]] = []
    for name, values in columns.items():
        head += [name, 'Δ']
        cells += [values, [None, *(_difference(value, values[0]) for value in values[1:])]]
    times, memories = ([run.log.series(name)[1] for run in runs] for name in ('time', 'memory'))
    rest: dict[str, list[Any]] = {
        'iterations': [run.log.train[-1]['iter'] if run.log.train else None for run in runs],
        's / iteration': [float(np.median(values)) if len(values) else None for values in times],
        'hours': [run.log.seconds / 3600 if run.log.train else None for run in runs],
        'memory, MB': [float(values.max()) if len(values) else None for values in memories],
    }
    head += rest
    cells += rest.values()
    return head, [list(row) for row in zip(*cells, strict=True)]


def last_figures(runs: Sequence[Run]) -> tuple[list[str], list[list[Any]]]:
    """Head and a row for every run: what else its last validation says, each with the difference to the first run's."""
    head: list[str] = []
    cells: list[list[Any]] = []
    for ending, name in LAST.items():
        values = [_figure(run, run.log.val[-1] if run.log.val else None, ending) for run in runs]
        if any(value is not None for value in values):
            head += [name, 'Δ']
            cells += [values, [None, *(_difference(value, values[0]) for value in values[1:])]]
    return head, [list(row) for row in zip(*cells, strict=True)]


def flatten(value: Any, prefix: str = '') -> dict[str, Any]:
    """A nested config as dotted keys, those of ``--cfg-options``; empty dicts and lists are values."""
    if isinstance(value, Mapping) and value:
        items = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(part, Mapping) for part in value):
        items = [(str(index), part) for index, part in enumerate(value)]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, part in items:
        flat.update(flatten(part, f'{prefix}.{key}' if prefix else key))
    return flat


def differences(configs: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """For every dotted key whose values differ: the key, and the value in each config as text, None where absent."""
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = []
    for key in keys:
        values = [repr(config[key]) if key in config else None for config in configs]
        if len(set(values)) > 1 and key.split('.')[0] not in PLACES:
            rows.append([key, *values])
    return rows


def _figure(run: Run, record: dict[str, Any] | None, ending: str) -> float | None:
    return run.figure(record, ending) if record is not None else None


def _difference(value: float | None, base: float | None) -> str | None:
    return None if value is None or base is None else f'{value - base:+.4f}'


def run_names(paths: Sequence[str | Path]) -> list[str]:
    """The last part of every path, or as many as tell them apart."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError('A run is compared with itself: give different work folders')
