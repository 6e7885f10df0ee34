"""The data of a training for a report: log, config, last validation, and a list of missing parts."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config

from frdet.errors import DataError
from frdet.evaluation.backends import CocoEval
from frdet.insight import store
from frdet.insight.errors import (
    ErrorSplit,
    F1Curve,
    Match,
    Results,
    confusion_matrix,
    f1_curve,
    match,
    read_results,
    split_errors,
)
from frdet.insight.report.logs import Log, read_log


class Analysis(NamedTuple):
    """Analysis of the last validation's detections."""

    results: Results  # objects and detections
    matched: Match  # at IoU 0.5
    f1: F1Curve  # of all classes together
    class_f1: list[F1Curve]
    confusion: np.ndarray  # (K + 1, K + 1), the background last; of detections from ``score`` on
    errors: ErrorSplit  # by kind

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

    @property
    def name(self) -> str:
        return self.work_dir.resolve().name

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
        paths = [path for folder in self.log.folders if (path := folder / 'config.py').is_file()]
        return paths[-1] if paths else None

    @cached_property
    def config(self) -> Config | None:
        """The content of ``config_file``; None if it is missing or cannot be read."""
        try:
            # The modules that the config imports may be missing here.
            return Config.fromfile(self.config_file, import_custom_modules=False) if self.config_file else None
        except Exception as error:  # a config is code: it may raise anything
            self.missing.append(f'The config {self.config_file} cannot be read: {error}')
            return None

    @cached_property
    def batches(self) -> list[Path]:
        """Pictures of the first training batches."""
        return sorted(path for folder in self.log.folders[:1] for path in folder.glob(store.BATCH.format('*')))

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
        if facts is None or facts.ann_file is None:
            self.missing.append('The annotations of the validation are not known: nothing to compare detections with')
            return None
        try:
            path = self.validated / store.DETECTIONS
            return analyse(read_results(facts.ann_file, path, img_ids=facts.img_ids, classes=facts.classes or None))
        except DataError as error:
            self.missing.append(f'The detections cannot be compared with the truth. {error}')
            return None

    @property
    def planned(self) -> int | None:
        """Number of iterations in the config; None if it is not known."""
        loop = (self.config.get('train_cfg') if self.config is not None else None) or {}
        if self.log.by_epoch and self.facts is not None and self.facts.iters_per_epoch and loop.get('max_epochs'):
            return int(loop['max_epochs']) * self.facts.iters_per_epoch
        return None if self.log.by_epoch else loop.get('max_iters')

    def note_its_end(self) -> None:
        """Add a sentence to ``missing`` if the training has not come to its end."""
        log, planned = self.log, self.planned
        last = max((record['iter'] for record in log.train + log.val), default=0)
        # Without epochs, iterations after the last multiple of the logger's interval are not logged.
        hooks = (self.config.get('default_hooks') if self.config is not None else None) or {}
        unlogged = 0 if log.by_epoch else (hooks.get('logger') or {}).get('interval', 10) - 1
        if planned and last + unlogged < planned:
            self.missing.append(
                f'The training has not come to its end: iteration {last:,} of {planned:,}. It runs, was stopped, or '
                'stopped early because it no longer improved'
            )

    def metric(self, record: dict[str, Any] | None, ending: str) -> float | None:
        """The value of the metric whose name ends with ``ending``, such as 'bbox_mAP'; None if there is none."""
        return next((value for name, value in (record or {}).items() if name.split('/')[-1] == ending), None)

    @property
    def last(self) -> dict[str, Any] | None:
        """The last validation."""
        return self.log.val[-1] if self.log.val else None

    @property
    def best(self) -> dict[str, Any] | None:
        """The validation with the greatest AP."""
        scored = [record for record in self.log.val if self.metric(record, 'bbox_mAP') is not None]
        return max(scored, key=lambda record: self.metric(record, 'bbox_mAP') or 0, default=None)


def read_run(work_dir: str | Path) -> Run:
    """Read the work dir of a training.

    Raises:
        ConfigError: it is no work dir of a training.
    """
    run = Run(Path(work_dir), read_log(work_dir))
    if not run.log.train:
        run.missing.append('No losses were logged: the training has not reached the first entry of its log')
    if not run.log.val:
        run.missing.append('No validation was logged: the run is unfinished, or does not validate')
    return run


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
    f1 = f1_curve(found.scores[counted], matched.right[counted], int(objects.sum()))
    confusion = confusion_matrix(found, truth, matched, num_classes=num_classes, score=f1.threshold)
    errors = split_errors(found, truth, matched, num_classes=num_classes)
    return Analysis(results, matched, f1, curves, confusion, errors)
