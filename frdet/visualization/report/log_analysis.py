"""What ``tools/analyze_logs.py`` shows: chosen curves of several runs, and how fast they were."""

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.errors import ConfigError
from frdet.visualization.page import Page
from frdet.visualization.plots import draw, save
from frdet.visualization.report.comparison_page import run_names
from frdet.visualization.report.figures import Plot, marked
from frdet.visualization.report.logs import PLACES, Log, read_log

DEFAULT_KEYS = ('loss*', 'bbox_mAP')
ENDINGS = ('.png', '.svg', '.pdf', '.html')
COLUMNS = 3  # plots side by side


class Pace(NamedTuple):
    """How fast an epoch was, or a whole run. Times are seconds an iteration.

    Attributes:
        epoch: None for the run.
        entries: records of the log that these figures are of.
        mean, fastest, slowest: over the entries, each the mean of a few iterations; see ``log_processor.window_size``.
        waiting: for data, a part of the mean; None where it was not logged.
        memory: MB of the GPU at most; None where there is none.
    """

    epoch: int | None
    entries: int
    mean: float
    fastest: float
    slowest: float
    waiting: float | None
    memory: float | None


def read_logs(work_dirs: Sequence[str | Path], names: Sequence[str] | None = None) -> dict[str, Log]:
    """The logs of runs by ``names``, which are the ends of their paths where None.

    Raises:
        ConfigError: a folder is none of a training, or nothing was logged there; or there is not one name for each.
    """
    if names is not None and len(set(names)) != len(work_dirs):
        raise ConfigError(f'{len(work_dirs)} runs, and names {", ".join(names)}: give each a name of its own')
    logs = {name: read_log(path) for name, path in zip(names or run_names(work_dirs), work_dirs, strict=True)}
    for path, log in zip(work_dirs, logs.values(), strict=True):
        if not log.train and not log.val:
            raise ConfigError(
                f'{path} has no entry in its log: the run ended, or is, before iteration default_hooks.logger.interval'
            )
    return logs


def choose_keys(logs: Mapping[str, Log], patterns: Sequence[str] | None = None) -> list[str]:
    """Names of logged numbers that fit shell patterns, by pattern; those of a metric also without its prefix.

    Raises:
        ConfigError: a pattern fits nothing; of ``DEFAULT_KEYS``, which stand in for None, one may.
    """
    records = [record for log in logs.values() for record in (*log.train, *log.val)]
    known = [name for name in dict.fromkeys(name for record in records for name in record) if name not in PLACES]
    chosen: dict[str, None] = {}
    for pattern in DEFAULT_KEYS if patterns is None else patterns:
        fitting = [n for n in known if any(fnmatch.fnmatchcase(end, pattern) for end in (n, n.rpartition('/')[2]))]
        if not fitting and patterns is not None:
            near = difflib.get_close_matches(pattern, known, n=1, cutoff=0.5)
            hint = f'did you mean {near[0]}? ' if near else ''
            raise ConfigError(f'No run logged {pattern!r}: {hint}There are {", ".join(sorted(known))}')
        chosen.update(dict.fromkeys(fitting))
    return list(chosen)


def values_of(log: Log, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) iterations and (n,) values, of training or else of validation, without those that measured nothing."""
    iters, values = log.series(key)
    return (iters, values) if len(iters) else log.series(key, of='val')


def curves(logs: Mapping[str, Log], keys: Sequence[str]) -> Plot:
    """A plot for each key, a line for each run."""
    columns = min(COLUMNS, len(keys))
    rows = -(-len(keys) // columns)

    def paint(axes: Any) -> None:
        flat = np.atleast_1d(axes).ravel()
        for axis, key in zip(flat, keys, strict=False):
            for name, log in logs.items():
                iters, values = values_of(log, key)
                axis.plot(iters, values, label=name, **marked(len(iters)))
            axis.set(title=key, xlabel='iteration')
            if 'loss' in key:
                axis.set_ylim(bottom=0)
        for axis in flat[len(keys) :]:
            axis.set_visible(False)
        if len(logs) > 1:
            flat[0].figure.legend(*flat[0].get_legend_handles_labels(), loc='outside lower center', ncols=4)

    return Plot(paint, (3.3 * columns + 0.6, 2.5 * rows + 0.4), rows, columns)


def write_curves(logs: Mapping[str, Log], keys: Sequence[str], out: str | Path) -> None:
    """Write the plots, as a picture or, with a table of the values, as an HTML page.

    Raises:
        ConfigError: the ending of ``out`` is none of ``ENDINGS``, or it cannot be written.
    """
    plot = curves(logs, keys)
    if Path(out).suffix.lower() not in ENDINGS:
        raise ConfigError(f'{out} ends in {Path(out).suffix or "nothing"!r}: expected {", ".join(ENDINGS)}')
    if Path(out).suffix.lower() == '.html':
        page = Page('Curves of trainings', facts={'runs': len(logs), 'keys': len(keys)})
        section = page.section('Curves', 'What was logged, over the iterations.')
        svg = draw(plot.paint, size=plot.size, rows=plot.rows, columns=plot.columns)
        section.plot(svg, ', '.join(keys), alt=f'A plot for each of {", ".join(keys)}; the values are in the table')
        head = ['key', 'run', 'entries', 'first', 'least', 'greatest', 'last', 'at iteration']
        page.section('Values').table(head, _summary(logs, keys), caption='Values of the curves')
        page.write(out)
        return
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        save(plot.paint, out, size=plot.size, rows=plot.rows, columns=plot.columns)
    except OSError as error:
        raise ConfigError(f'{out} cannot be written ({error.strerror}): choose another path') from None


def _summary(logs: Mapping[str, Log], keys: Sequence[str]) -> list[list[Any]]:
    rows = []
    for key in keys:
        for name, log in logs.items():
            iters, values = values_of(log, key)
            figures = [values[0], values.min(), values.max(), values[-1], int(iters[-1])] if len(iters) else [None] * 5
            rows.append([key, name, len(iters), *figures])
    return rows


def paces(log: Log) -> list[Pace]:
    """How fast each epoch was, if training goes by epochs, and last the whole run; empty if no time was logged."""
    timed = [record for record in log.train if 'time' in record]
    epochs = sorted({record['epoch'] for record in timed}) if log.by_epoch else []
    parts = [(epoch, [record for record in timed if record['epoch'] == epoch]) for epoch in epochs]
    return [_pace(epoch, records) for epoch, records in [*parts, (None, timed)] if records]


def _pace(epoch: int | None, records: list[dict[str, Any]]) -> Pace:
    times = [record['time'] for record in records]
    waiting = [record['data_time'] for record in records if 'data_time' in record]
    memory = [record['memory'] for record in records if 'memory' in record]
    return Pace(
        epoch,
        len(records),
        float(np.mean(times)),
        min(times),
        max(times),
        float(np.mean(waiting)) if waiting else None,
        max(memory, default=None),
    )
