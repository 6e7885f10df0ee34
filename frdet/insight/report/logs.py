"""The logged numbers of a training, with all pieces of a resumed one put together."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.errors import ConfigError
from frdet.evaluation.coco_metric import is_defined
from frdet.insight.store import RUN, RunFacts, load_facts

SCALARS = 'scalars.json'
PLACES = ('epoch', 'iter', 'step')  # the position of a record in the training
#: Numbers that a validation logs besides the metric values.
TIMES = ('time', 'data_time', 'memory')


class Log(NamedTuple):
    """Logged records, sorted by ``iter``; a validation has the iteration after which it ran.

    Validations have no ``TIMES``. A metric without a defined value is None.
    """

    train: list[dict[str, Any]]  # lr, losses, time and others
    val: list[dict[str, Any]]
    by_epoch: bool  # whether ``epoch`` counts passes over the data
    folders: list[Path]  # vis_data of the pieces, the oldest first

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(n,) iterations and (n,) values that the training logged under ``name``."""
        records = [record for record in self.train if name in record]
        return np.array([record['iter'] for record in records]), np.array([record[name] for record in records])

    @property
    def losses(self) -> list[str]:
        """Names of the losses, the total first."""
        names = {name: None for record in self.train for name in record if 'loss' in name}
        return sorted(names, key=lambda name: name != 'loss')

    @property
    def seconds(self) -> float:
        """Seconds of all iterations together, without validations."""
        iters, times = self.series('time')
        return float((np.diff(iters, prepend=0) * times).sum()) if len(iters) else 0.0


def read_log(work_dir: str | Path) -> Log:
    """Put together the logs of all pieces of a training.

    A piece that resumed from a checkpoint replaces later records of earlier pieces. A piece that started from the
    beginning replaces all of them.

    Raises:
        ConfigError: ``work_dir`` is no work dir of a training.
    """
    if not Path(work_dir).is_dir():
        raise ConfigError(f'No folder {work_dir}: give the work dir of a training, such as work_dirs/<config>')
    folders = sorted(Path(work_dir).glob('*/vis_data'))
    if not folders:
        raise ConfigError(
            f'{work_dir} is no work dir: it has no <time>/vis_data, which tools/train.py makes. '
            'Give the folder that holds the checkpoints'
        )
    log = Log([], [], False, [])
    for folder in folders:
        train, val, by_epoch = _read_piece(folder)
        first = min((record['iter'] for record in train + val), default=None)
        if first is not None and all(first <= record['iter'] for record in log.train + log.val):
            log = Log([], [], False, [])
        if first is not None:
            train_before, val_before = ([r for r in records if r['iter'] < first] for records in (log.train, log.val))
            log = Log(train_before, val_before, log.by_epoch, log.folders)
        if first is not None or (folder / RUN).is_file():
            log = Log(log.train + train, log.val + val, log.by_epoch or by_epoch, [*log.folders, folder])
    return log


def _read_piece(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], bool]:
    facts = load_facts(folder)
    per_epoch = facts.iters_per_epoch if facts else None
    train: list[dict[str, Any]] = []
    val: list[dict[str, Any]] = []
    for record in _records(folder / SCALARS):
        if 'iter' in record:
            train.append(record)
            continue
        step = record.get('step', 0)
        kept = {
            name: value if is_defined(name, value) else None
            for name, value in record.items()
            if name not in (*PLACES, *TIMES)
        }
        val.append({'iter': _iteration(step, facts, train), 'epoch': step, **kept})
    epochs = {record.get('epoch') for record in train}
    return train, val, per_epoch is not None or (facts is None and len(epochs) > 1)


def _iteration(step: int, facts: RunFacts | None, train: list[dict[str, Any]]) -> int:
    """The iteration of a validation. Its ``step`` is the epoch, or the iteration if the training does not count epochs.

    The last logged iteration is taken, because it is close, where ``step`` is of no use: without ``facts`` its unit is
    unknown, and earlier versions logged step 0 for every validation of a training that counts iterations.
    """
    if facts is not None and facts.iters_per_epoch:
        return step * facts.iters_per_epoch
    last = train[-1]['iter'] if train else 0
    return max(step, last) if facts is not None else last


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except OSError:
        return
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # the run was killed while it wrote this line
            continue
        if isinstance(record, dict):
            yield {name: value for name, value in record.items() if isinstance(value, (int, float))}


def table(log: Log) -> tuple[list[str], list[list[float | int | None]]]:
    """Head and rows of ``results.csv``.

    A row is an epoch, or the time between two validations if the training does not count epochs. It has the means of
    the logged numbers, the last learning rate, the most memory, and the metrics of the validation at its end.
    """
    ends = [record['iter'] for record in log.val]
    rows: dict[int, dict[str, Any]] = {}
    for record in log.train:
        key = record['epoch'] if log.by_epoch else int(np.searchsorted(ends, record['iter']))
        rows.setdefault(key, {'records': [], 'metrics': {}})['records'].append(record)
    for number, record in enumerate(log.val):
        key = record['epoch'] if log.by_epoch else number
        rows.setdefault(key, {'records': [], 'metrics': {}})['metrics'] = record
    names = list(dict.fromkeys(name for record in log.train for name in record if name not in PLACES))
    metrics = list(dict.fromkeys(name for record in log.val for name in record if name not in PLACES))
    head = [*(['epoch'] if log.by_epoch else []), 'iter', *names, *metrics]
    lines = []
    for key in sorted(rows):
        records, found = rows[key]['records'], rows[key]['metrics']
        last = max([record['iter'] for record in records] + [found.get('iter', 0)])
        values = [_summary(name, [record[name] for record in records if name in record]) for name in names]
        lines.append([*([key] if log.by_epoch else []), last, *values, *(found.get(name) for name in metrics)])
    return head, lines


def _summary(name: str, values: list[float]) -> float | None:
    if not values:
        return None
    if name.endswith('lr'):
        return values[-1]
    return max(values) if name == 'memory' else float(np.mean(values))
