"""The page that compares several trainings."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frdet.config.origins import leaves
from frdet.errors import ConfigError
from frdet.insight.naming import run_names
from frdet.insight.page import Page
from frdet.insight.report import plots
from frdet.insight.report.run import Run, read_run
from frdet.progress import track

#: Metrics of the last validation: the end of the name in the log, and the name in the table.
LAST = {
    'bbox_mAP_75': 'AP75',
    'bbox_mAP_s': 'AP_s',
    'bbox_mAP_m': 'AP_m',
    'bbox_mAP_l': 'AP_l',
    'bbox_AR@100': 'AR@100',
    'segm_mAP': 'AP of masks',
}
#: Keys that say where a run was made, not what it computed.
PLACES = ('work_dir', 'visualizer', 'vis_backends', 'resume', 'launcher')


def write_comparison(work_dirs: Sequence[str | Path], out: str | Path) -> Path:
    """Write the page that compares trainings with the first of them.

    Raises:
        ConfigError: there are fewer than two, one is no work dir of a training, or ``out`` cannot be written.
    """
    if len(work_dirs) < 2:
        raise ConfigError(f'{len(work_dirs)} run to compare: give two or more work dirs')
    paths = dict(zip(run_names(work_dirs), work_dirs, strict=True))
    runs = {name: read_run(path) for name, path in track(paths.items(), 'Reading the runs', total=len(paths))}
    configs = [dict(leaves('', run.config)) if run.config else {} for run in runs.values()]
    for run in runs.values():
        run.note_its_end()
    missing = [f'{name}: {sentence}' for name, run in runs.items() for sentence in run.missing]
    base = next(iter(runs))
    page = Page('Comparison of trainings', f'{len(runs)} runs, beside {base}.', warnings=missing)
    section = page.section('Metrics', f'Signed numbers are differences to {base}.')
    for caption, make in (('Runs', ablation), ('Last validation', last_metrics)):
        head, rows = make(list(runs.values()))
        if head:
            section.table(['run', *head], [[name, *row] for name, row in zip(runs, rows, strict=True)], caption=caption)
    page.section('Curves').plot(plots.comparison(runs), 'Loss and average precision')
    section = page.section('Config', 'Keys whose values differ; a dash stands where a run has no such key.')
    if rows := differences(configs):
        section.table(['key', *runs], rows, caption='Differences of the configs')
    else:
        section.text('The configs are the same, except for keys that say where a run was made.')
    page.write(out)
    return Path(out)


def ablation(runs: Sequence[Run]) -> tuple[list[str], list[list[Any]]]:
    """Head and a row for every run: AP and its difference from the first run, iterations, time and memory."""
    rows = []
    for run in runs:
        time, waiting, memory = (run.log.series(name)[1] for name in ('time', 'data_time', 'memory'))
        row = {
            'best AP': run.metric(run.best, 'bbox_mAP'),
            'last AP': run.metric(run.last, 'bbox_mAP'),
            'last AP50': run.metric(run.last, 'bbox_mAP_50'),
            'iterations': run.log.train[-1]['iter'] if run.log.train else None,
            's / iteration': float(np.median(time)) if len(time) else None,
            'waiting for data': f'{np.mean(waiting) / np.mean(time):.1%}' if len(waiting) else None,
            'hours': run.log.seconds / 3600 if run.log.train else None,
            'memory, MB': float(memory.max()) if len(memory) else None,
        }
        rows.append(row)
    return _with_differences(rows, ('best AP', 'last AP', 'last AP50'))


def last_metrics(runs: Sequence[Run]) -> tuple[list[str], list[list[Any]]]:
    """Head and a row for every run: other metrics of its last validation, with differences from the first run."""
    rows = [{name: run.metric(run.last, ending) for ending, name in LAST.items()} for run in runs]
    known = [name for name in LAST.values() if any(row[name] is not None for row in rows)]
    return _with_differences([{name: row[name] for name in known} for row in rows], known)


def _with_differences(
    rows: Sequence[Mapping[str, Any]], compared: Collection[str]
) -> tuple[list[str], list[list[Any]]]:
    """Head and cells; each ``compared`` column is followed by its differences from the first row."""
    base = rows[0]

    def cells(row: Mapping[str, Any]) -> Iterator[Any]:
        for name, value in row.items():
            yield value
            if name in compared:
                has_both = row is not base and value is not None and base[name] is not None
                yield f'{value - base[name]:+.4f}' if has_both else None

    head = [title for name in base for title in ([name, 'Δ'] if name in compared else [name])]
    return head, [list(cells(row)) for row in rows]


def differences(configs: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A row for every key path whose values differ: the path, and its value in each config as text (None if absent)."""
    keys = dict.fromkeys(key for config in configs for key in config if key.split('.')[0] not in PLACES)
    rows = [[key, *(repr(config[key]) if key in config else None for config in configs)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]
