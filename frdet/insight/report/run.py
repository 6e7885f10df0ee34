"""The data of a training for a report: log, config, last validation, and a list of missing parts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config

from frdet.errors import ConfigError, DataError
from frdet.evaluation.backends import CocoEval
from frdet.evaluation.coco_metric import is_defined
from frdet.insight import store
from frdet.insight.curves import F1Curve, f1_curve, f1_of_all
from frdet.insight.errors import (
    ErrorSplit,
    Match,
    Results,
    confusion_matrix,
    match,
    split_errors,
)

Record = dict[str, Any]

PLACES = ('epoch', 'iter', 'step')  # the position of a record in the training
#: Numbers that a validation logs besides the metric values.
TIMES = ('time', 'data_time', 'memory')


class Log(NamedTuple):
    """Logged records, sorted by ``iter``; a validation has the iteration after which it ran.

    Validations have no ``TIMES``. A metric without a defined value is None.
    """

    train: list[Record]  #: lr, losses, time and others
    val: list[Record]
    by_epoch: bool  #: whether ``epoch`` counts passes over the data
    folders: list[Path]  #: vis_data of the pieces, the oldest first

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

    def table(self) -> tuple[list[str], list[list[float | int | None]]]:
        """Head and rows of ``results.csv``.

        A row is an epoch, or the time between two validations if the training does not count epochs. It has the means
        of the logged numbers, the last learning rate, the most memory, and the metrics of the validation at its end.
        """
        ends = [record['iter'] for record in self.val]
        logged: dict[int, list[Record]] = {}
        for record in self.train:
            key = record['epoch'] if self.by_epoch else int(np.searchsorted(ends, record['iter']))
            logged.setdefault(key, []).append(record)
        validated = {record['epoch'] if self.by_epoch else number: record for number, record in enumerate(self.val)}
        names, metrics = (
            list(dict.fromkeys(name for record in records for name in record if name not in PLACES))
            for records in (self.train, self.val)
        )
        rows = []
        for key in sorted(logged.keys() | validated.keys()):
            records, found = logged.get(key, []), validated.get(key, {})
            last = max([record['iter'] for record in records] + [found.get('iter', 0)])
            values = [_summary(name, [record[name] for record in records if name in record]) for name in names]
            rows.append([*([key] if self.by_epoch else []), last, *values, *map(found.get, metrics)])
        return [*(['epoch'] if self.by_epoch else []), 'iter', *names, *metrics], rows


def _summary(name: str, values: list[float]) -> float | None:
    if not values:
        return None
    if name.endswith('lr'):
        return values[-1]
    return max(values) if name == 'memory' else float(np.mean(values))


class Analysis(NamedTuple):
    """Analysis of the last validation's detections."""

    results: Results  #: objects and detections
    matched: Match  #: at IoU 0.5
    f1: F1Curve  #: of all classes together
    class_f1: list[F1Curve]
    confusion: np.ndarray  #: (K + 1, K + 1), the background last; of detections from ``score`` on
    errors: ErrorSplit  #: by kind

    @property
    def score(self) -> float:
        """The least score of detections that are drawn and counted: the score where F1 is best."""
        return self.f1.threshold


@dataclass
class Run:
    """A training in its work dir."""

    work_dir: Path
    log: Log
    missing: list[str] = field(default_factory=list)  # sentences about missing parts; more come as parts are read

    @cached_property
    def facts(self) -> store.RunFacts | None:
        """Facts of the last piece that has any."""
        found = next((facts for folder in reversed(self.log.folders) if (facts := store.load_facts(folder))), None)
        if found is None:
            self.missing.append(f'No {store.RUN}: the run was trained without ReportHook, or by an earlier version')
        return found

    @property
    def config_file(self) -> Path | None:
        """The config of the last piece, with all bases and overrides."""
        paths = (folder / 'config.py' for folder in reversed(self.log.folders))
        return next((path for path in paths if path.is_file()), None)

    @cached_property
    def config(self) -> Config:
        """The content of ``config_file``; empty if it is missing or cannot be read."""
        try:
            # The modules that the config imports may be missing here.
            return Config.fromfile(self.config_file, import_custom_modules=False) if self.config_file else Config()
        except Exception as error:  # a config is code: it may raise anything
            self.missing.append(f'The config {self.config_file} cannot be read: {error}')
            return Config()

    @cached_property
    def validated(self) -> Path | None:
        """Folder of the last piece that wrote its detections."""
        folders = [folder for folder in self.log.folders if (folder / store.DETECTIONS).is_file()]
        if not folders:
            self.missing.append('No detections: there was no validation yet, or not by CocoMetric')
        return folders[-1] if folders else None

    @cached_property
    def evaluation(self) -> CocoEval | None:
        """COCO's arrays of the last validation."""
        return store.load_evaluation(self.validated) if self.validated else None

    @cached_property
    def analysis(self) -> Analysis | None:
        """Analysis of the last validation; None without detections or annotations."""
        if self.validated is None:
            return None
        facts = store.load_facts(self.validated)
        try:
            results = store.load_results(facts, self.validated, with_masks=True) if facts else None
        except DataError as error:
            self.missing.append(f'The detections cannot be compared with the truth. {error}')
            return None
        if results is None:
            self.missing.append('The annotations of the validation are not known: nothing to compare detections with')
            return None
        return analyse(results)

    def note_its_end(self) -> None:
        """Add a sentence to ``missing`` if the training has not come to its end."""
        loop, log = self.config.get('train_cfg') or {}, self.log
        if log.by_epoch:
            planned = (loop.get('max_epochs') or 0) * ((self.facts and self.facts.iters_per_epoch) or 0)
            unlogged = 0
        else:  # iterations after the last multiple of the logger's interval are not logged
            planned = loop.get('max_iters')
            unlogged = ((self.config.get('default_hooks') or {}).get('logger') or {}).get('interval', 10) - 1
        last = max((record['iter'] for record in log.train + log.val), default=0)
        if planned and last + unlogged < planned:
            self.missing.append(
                f'The training has not come to its end: iteration {last:,} of {planned:,}. It runs, was stopped, or '
                'stopped early because it no longer improved'
            )

    def metric(self, record: Record | None, ending: str) -> float | None:
        """The value of the metric whose name ends with ``ending``, such as 'bbox_mAP'; None if there is none."""
        return next((value for name, value in (record or {}).items() if name.split('/')[-1] == ending), None)

    @property
    def last(self) -> Record | None:
        """The last validation."""
        return self.log.val[-1] if self.log.val else None

    @property
    def best(self) -> Record | None:
        """The validation with the greatest AP."""
        scored = [record for record in self.log.val if self.metric(record, 'bbox_mAP') is not None]
        return max(scored, key=lambda record: self.metric(record, 'bbox_mAP') or 0, default=None)


def read_run(work_dir: str | Path) -> Run:
    """Read the work dir of a training.

    Raises:
        ConfigError: it is no work dir of a training.
    """
    run = Run(Path(work_dir), read_log(Path(work_dir)))
    if not run.log.train:
        run.missing.append('No losses were logged: the training has not reached the first entry of its log')
    if not run.log.val:
        run.missing.append('No validation was logged: the run is unfinished, or does not validate')
    return run


def read_log(work_dir: Path) -> Log:
    """Put together the logs of all pieces of a training.

    A piece that resumed from a checkpoint replaces later records of earlier pieces. A piece that started from the
    beginning replaces all of them.

    Raises:
        ConfigError: ``work_dir`` is no work dir of a training.
    """
    if not work_dir.is_dir():
        raise ConfigError(f'No folder {work_dir}: give the work dir of a training, such as work_dirs/<config>')
    folders = sorted(work_dir.glob('*/vis_data'))
    if not folders:
        raise ConfigError(
            f'{work_dir} is no work dir: it has no <time>/vis_data, which tools/train.py makes. '
            'Give the folder that holds the checkpoints'
        )
    log = Log([], [], False, [])
    for folder in folders:
        train, val, by_epoch = _read_piece(folder)
        if train or val:
            first = min(record['iter'] for record in train + val)
            before, val_before = ([r for r in records if r['iter'] < first] for records in (log.train, log.val))
            is_resumed = before or val_before
            log = Log(before, val_before, log.by_epoch, log.folders) if is_resumed else Log([], [], False, [])
        if train or val or (folder / store.RUN).is_file():
            log = Log(log.train + train, log.val + val, log.by_epoch or by_epoch, [*log.folders, folder])
    return log


def _read_piece(folder: Path) -> tuple[list[Record], list[Record], bool]:
    facts = store.load_facts(folder)
    train: list[Record] = []
    val: list[Record] = []
    for record in _records(folder / 'scalars.json'):
        if 'iter' in record:
            train.append(record)
            continue
        # `step` is the epoch of a validation, or its iteration if the training does not count epochs. The last logged
        # iteration is taken, because it is close, where `step` is of no use: without facts its unit is unknown, and
        # earlier versions logged step 0 for every validation of a training that counts iterations.
        step, place = record.get('step', 0), train[-1]['iter'] if train else 0
        if facts is not None:
            place = step * facts.iters_per_epoch if facts.iters_per_epoch else max(step, place)
        names = [name for name in record if name not in (*PLACES, *TIMES)]
        metrics = {name: record[name] if is_defined(name, record[name]) else None for name in names}
        val.append({'iter': place, 'epoch': step, **metrics})
    epochs = {record.get('epoch') for record in train}
    return train, val, facts.iters_per_epoch is not None if facts is not None else len(epochs) > 1


def _records(path: Path) -> Iterator[Record]:
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


def analyse(results: Results) -> Analysis:
    """Match detections with objects, and compute curves, confusions and errors."""
    truth, found = results.truth, results.found
    num_classes = len(results.classes)
    matched = match(found, truth, num_classes=num_classes)
    counted, objects = ~matched.ignored, np.bincount(truth.label[~truth.crowd], minlength=num_classes)
    curves = [
        f1_curve(found.scores[rows], matched.right[rows], int(objects[k]))
        for k in range(num_classes)
        for rows in [counted & (found.label == k)]
    ]
    f1 = f1_of_all(found, truth, matched)
    confusion = confusion_matrix(found, truth, matched, num_classes=num_classes, score=f1.threshold)
    errors = split_errors(found, truth, matched, num_classes=num_classes)
    return Analysis(results, matched, f1, curves, confusion, errors)
