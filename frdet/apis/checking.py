"""Checking all data of a config: training, validation or testing would refuse the errors, or go wrong."""

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger

from frdet.apis.classes import resolve_num_classes
from frdet.datasets.base import UNUSED_CLASS, DetDataset
from frdet.datasets.checking import ERRORS, Findings
from frdet.datasets.checking.annotations import check_annotations
from frdet.datasets.checking.images import Group, find_copies, find_images, read_images
from frdet.datasets.wrappers import leaves
from frdet.engine.hooks.check_setup import check_classes, compare_classes
from frdet.errors import ConfigError, UserError
from frdet.progress import track
from frdet.registry import DATASETS, DETECTORS, METRICS, in_config_scope

SPLITS = ('train', 'val', 'test')


class DataReport(NamedTuple):
    """The findings in an annotation file and its images, or in all data sets of a config together."""

    ann_file: str
    folder: str
    splits: tuple[str, ...]
    counts: str
    findings: Findings

    def __str__(self) -> str:
        title = f'{self.ann_file} ({", ".join(self.splits)}): {self.counts}'
        title += f'; images in {self.folder}' if self.folder else ''
        return f'{title}\n{self.findings.table() if self.findings else "Nothing to report"}'


@in_config_scope
def check_data(cfg: Config, *, images: bool = False, workers: int | None = None) -> list[DataReport]:
    """Check each annotation file of the data loaders of ``cfg`` once, and whether its images exist.

    Then the code of a run builds the data sets and compares them with the model and the evaluators.

    Args:
        cfg: a config that passed ``check_config``.
        images: read every image, too.
        workers: number of processes that read images; None starts one for each core that this process may use.

    Returns:
        A report for each annotation file, and one for the whole config if something was found in it.

    Raises:
        ConfigError: a data set is no ``DetDataset``, there is none, or ``workers`` is no positive number.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f'{workers} workers: expected at least 1')
    splits_of: dict[tuple, tuple[DetDataset, list[str]]] = {}
    for split in SPLITS:
        for leaf in leaves((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
            dataset = DATASETS.build({**leaf, 'pipeline': [], 'lazy_init': True})
            if not isinstance(dataset, DetDataset):
                raise ConfigError(f'{split}_dataloader has a {type(dataset).__name__}: only a DetDataset is checked')
            key = (type(dataset), dataset.ann_file, dataset.data_prefix['img'])
            dataset, splits = splits_of.setdefault(key, (dataset, []))
            splits += [split] if split not in splits else []
    if not splits_of:
        raise ConfigError('The config has no data loader with a dataset: nothing to check')
    workers = workers or len(os.sched_getaffinity(0))
    files = track(splits_of.values(), 'Checking annotation files', total=len(splits_of), delay=0)
    reports, groups = [], []
    for dataset, splits in files:
        findings, folder = Findings(), dataset.data_prefix['img']
        dataset.prepare_files()
        records, counts = check_annotations(dataset, findings)
        there = find_images(records, folder, findings)
        if images and there:
            read_images(there, workers, findings)
        reports.append(DataReport(dataset.ann_file, folder, tuple(splits), counts, findings))
        groups.append(Group(splits, there, findings))
    together = Findings()
    find_copies(groups, together, within=images)
    refused = any(ERRORS.get(kind, '').startswith('stops') for report in reports for kind in report.findings)
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)  # the report has all that data sets and evaluators would log
    try:
        _check_together(cfg, together, refused=refused)
    finally:
        logger.setLevel(level)
    if together:
        named = tuple(split for split in SPLITS if cfg.get(f'{split}_dataloader'))
        count = f'{len(splits_of)} annotation files'
        reports.append(DataReport(cfg.filename or 'The config', '', named, count, together))
    return reports


def _check_together(cfg: Config, findings: Findings, *, refused: bool) -> None:
    """Build the data sets, the model and the evaluators, and add their errors to ``findings``.

    Args:
        refused: an annotation file was refused already, so an error of its data set is not repeated.
    """
    built: dict[str, Any] = {}
    for split in SPLITS:
        if (loader := cfg.get(f'{split}_dataloader')) is None:
            continue
        with _noting(Findings() if refused else findings, 'data set refused', f'{split}_dataloader: '):
            config = copy.deepcopy(loader['dataset'])
            for leaf in leaves(config):
                leaf['pipeline'] = []  # no image is read
            built[split] = DATASETS.build(config)
        for leaf in leaves(built.get(split)):
            _check_boxes(leaf, split, findings)
    _check_classes(cfg, built, findings)
    for split in ('val', 'test'):
        if split in built:
            _check_evaluators(cfg.get(f'{split}_evaluator'), built[split], split, findings)


@contextmanager
def _noting(findings: Findings, kind: str, where: str = '') -> Iterator[None]:
    """A UserError ends the context, and is added to ``findings``."""
    try:
        yield
    except UserError as error:
        findings.add(kind, f'{where}{error}')


def _check_boxes(dataset: DetDataset, split: str, findings: Findings) -> None:
    counts = np.zeros(len(dataset.metainfo['classes']), dtype=int)
    for index in range(len(dataset)):
        record = dataset.get_data_info(index)
        np.add.at(counts, record['gt_labels'][~record['gt_crowd']], 1)
    for label in np.flatnonzero(counts == 0):
        if (name := dataset.metainfo['classes'][label]) != UNUSED_CLASS or dataset.cat_ids[label] is not None:
            findings.add('class without a box', f'{split}_dataloader: {name!r} in {dataset.ann_file}')
    for reason, count in dataset.left_out.items():
        findings.add('image left out of training', f'{split}_dataloader: {count} {reason}')


def _check_classes(cfg: Config, built: dict[str, Any], findings: Findings) -> None:
    """The comparisons of ``CheckSetupHook`` before the first step."""
    classes = {split: dataset.metainfo.get('classes') for split, dataset in built.items()}
    if cfg.get('model') is not None and built:
        cfg = copy.deepcopy(cfg)
        resolve_num_classes(cfg, lambda: next(iter(classes.values())) or ())
        model = DETECTORS.build(cfg.model)
        for split in built:
            with _noting(findings, 'classes refused'):
                check_classes(model, built[split], f'{split}_dataloader')
    for split in (name for name in built if name != 'train' and 'train' in built):
        with _noting(findings, 'classes refused'):
            compare_classes(classes['train'], 'train_dataloader', built[split], f'{split}_dataloader')


def _check_evaluators(evaluators: Any, dataset: Any, split: str, findings: Findings) -> None:
    if isinstance(evaluators, dict) and 'metrics' in evaluators:
        evaluators = evaluators['metrics']
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if evaluator is None:
            continue
        with _noting(findings, 'evaluation refused', f'{split}_evaluator: '):
            metric = METRICS.build(evaluator)
            if hasattr(metric, 'use_dataset'):
                metric.use_dataset(dataset)
            for doubt in getattr(metric, 'doubts', ()):
                findings.add('said by the evaluator', f'{split}_evaluator: {doubt}')
            if not getattr(metric, 'has_object', True):
                findings.add('nothing to evaluate', f'{split}_evaluator: no object of the tested classes')
