"""A hook that writes curves and tables of a training, and the data for a report."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from frdet.evaluation import CocoMetric
from frdet.insight import found, store
from frdet.registry import HOOKS


def _never_fails(method: Callable) -> Callable:
    """Run a method on the first process only, and log a warning instead of its exception."""

    @functools.wraps(method)
    def wrapped(self: Any, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if not is_main_process():
            return
        try:
            method(self, runner, *args, **kwargs)
        except Exception as error:
            runner.logger.warning(f'The report of this training lacks a part ({type(error).__name__}: {error})')

    return wrapped


@HOOKS.register_module()
class ReportHook(Hook):
    """Keeps the data for ``tools/report.py``, and writes ``results.csv`` and plots into the work dir at the end.

    ``vis_data`` holds the last validation's detections in COCO's format and its precisions, the objects that each
    validation found, pictures of the first training batches, label statistics, versions and the command. This takes
    seconds. Its errors end no training.

    Args:
        batches: number of training batches to draw.
    """

    priority = 'LOWEST'  # after the logger and the checkpoints

    def __init__(self, *, batches: int = 2):
        self.batches = batches
        self._drawn = 0
        self._facts: store.RunFacts | None = None

    @_never_fails
    def before_train(self, runner: Runner) -> None:
        """Write the facts that are known now, and make the metric write its detections."""
        metric = _coco_metric(runner)
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._facts = store.gather_facts(
            runner.train_dataloader.dataset,
            runner.val_dataloader.dataset if runner.val_loop is not None else None,
            ann_file=metric.coco_file(_folder(runner)) if metric else None,
            iters_per_epoch=len(runner.train_dataloader) if by_epoch else None,
            has_ids=metric is not None and all(source.content.ids is not None for source in metric.truth().sources),
        )
        store.save_facts(self._facts, _folder(runner))
        if metric is not None and metric.outfile is None:
            metric.outfile = str(_folder(runner) / store.DETECTIONS)

    @_never_fails
    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Draw the first batches."""
        if self._drawn < self.batches:
            self._drawn += 1  # before it is drawn, so that a failure is not tried again
            classes = store.class_names(runner.train_dataloader.dataset)
            store.save_batch(data_batch, _folder(runner) / store.BATCH.format(self._drawn), classes)

    @_never_fails
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the precisions and the objects found; copy the detections if the config has them written elsewhere."""
        metric = _coco_metric(runner)
        if metric is None or metric.evaluation is None or metric.outfile is None:
            return
        store.save_evaluation(metric.evaluation, _folder(runner))
        if Path(metric.outfile) != _folder(runner) / store.DETECTIONS:
            shutil.copyfile(metric.outfile, _folder(runner) / store.DETECTIONS)
        if self._facts is not None and (results := store.load_results(self._facts, _folder(runner))) is not None:
            step = runner.iter if isinstance(runner.train_loop, IterBasedTrainLoop) else runner.epoch  # as LoggerHook
            found.keep(_folder(runner), results, step=step)

    @_never_fails
    def after_train(self, runner: Runner) -> None:
        """Write the table and the plots."""
        from frdet.insight.report import write_files  # here, because it imports matplotlib and jinja2

        write_files(runner.work_dir)
        runner.logger.info(f'results.csv and plots are in {runner.work_dir}; a page: tools/report.py {runner.work_dir}')


def _coco_metric(runner: Runner) -> CocoMetric | None:
    metrics = runner.val_evaluator.metrics if runner.val_loop is not None else ()
    return next((metric for metric in metrics if isinstance(metric, CocoMetric)), None)


def _folder(runner: Runner) -> Path:
    return Path(runner.log_dir) / 'vis_data'
