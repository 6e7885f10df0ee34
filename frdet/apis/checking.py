"""Checking all data of a config: training, validation or testing would refuse the errors, or go wrong."""

import copy
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger

from frdet.apis.classes import resolve_num_classes
from frdet.datasets.base import DetDataset, categories_of
from frdet.datasets.checking import ERRORS, Findings, Place
from frdet.datasets.checking.annotations import check_annotations
from frdet.datasets.checking.copies import Group, find_copies, find_near_duplicates
from frdet.datasets.checking.images import ImageFile, find_images, read_images
from frdet.datasets.classes import UNUSED_CLASS
from frdet.datasets.formats.recognising import Found
from frdet.datasets.wrappers import entry, leaves
from frdet.engine.hooks.check_setup import check_classes, compare_classes
from frdet.errors import ConfigError, DataError, UserError
from frdet.progress import track
from frdet.registry import DATASETS, DETECTORS, METRICS, TRANSFORMS, in_config_scope

SPLITS = ('train', 'val', 'test')
FEW = 10  # boxes; a class with fewer in training is hardly learnt
SHOWN = 8  # classes that a report names
Size = Callable[[int, int], tuple[int, int]]  # (height, width) before and after the pipeline


class DataReport(NamedTuple):
    """The findings in an annotation file and its images, or in all data sets of a config together.

    Attributes:
        boxes: number of objects of each class.
    """

    ann_file: str
    folder: str
    splits: tuple[str, ...]
    counts: str
    findings: Findings
    boxes: Mapping[str, int] = {}

    def __str__(self) -> str:
        lines = [f'{self.ann_file} ({", ".join(self.splits)}): {self.counts}']
        lines[0] += f'; images in {self.folder}' if self.folder else ''
        if self.boxes:
            rarest = sorted(self.boxes.items(), key=lambda item: item[1])
            more = f' and {len(rarest) - SHOWN} classes with more' if len(rarest) > SHOWN else ''
            lines.append('Boxes: ' + ', '.join(f'{name} {count:,}' for name, count in rarest[:SHOWN]) + more)
        lines.append(self.findings.table() if self.findings else 'Nothing to report')
        return '\n'.join(lines)


def config_of(found: Found) -> Config:
    """A config with the data of a folder or file. Images that are not divided are training data.

    Raises:
        DataError: there are images without labels.
    """
    if found.reader == 'ImageFolder':
        raise DataError(f'{found.root} has images and no labels, so there is nothing to check: label them first')
    datasets = {part: dict(type=found.reader, data_root=found.root, **args) for part, args in found.parts.items()}
    classes: dict[str, Any] = {}  # of all parts, because a part need not have all
    for dataset in datasets.values() if len(datasets) > 1 else ():
        with suppress(DataError):  # the check reports it
            classes.update(categories_of(dataset))
    metainfo = dict(metainfo=dict(classes=list(classes))) if classes else {}
    names = {part: f'{"train" if part == "all" else part}_dataloader' for part in datasets}
    return Config({names[part]: dict(dataset={**dataset, **metainfo}) for part, dataset in datasets.items()})


@in_config_scope
def check_data(cfg: Config, *, images: bool = False, workers: int | None = None) -> list[DataReport]:
    """Check each annotation file of the data loaders of ``cfg`` once, and whether its images exist.

    Then the code of a run builds the data sets and compares them with the model and the evaluators.

    Args:
        cfg: a config that passed ``check_config``.
        images: read every image, too, and find near-duplicates.
        workers: number of processes that read images; None starts one for each core that this process may use.

    Returns:
        A report for each annotation file, and one for the whole config if something was found in it.

    Raises:
        ConfigError: a data set is no ``DetDataset``, there is none, or ``workers`` is no positive number.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f'{workers} workers: expected at least 1')
    files = _files(cfg)
    if not files:
        raise ConfigError('The config has no data loader with a dataset: nothing to check')
    with _quiet():  # the report has all that data sets and evaluators would log
        reports, together = _check_files(files, images, workers or len(os.sched_getaffinity(0)))
        refused = any(ERRORS.get(kind, '').startswith('stops') for report in reports for kind in report.findings)
        _check_together(cfg, together, refused=refused)
    if together:
        named = tuple(split for split in SPLITS if cfg.get(f'{split}_dataloader'))
        count = f'{len(files)} annotation file{"s" if len(files) > 1 else ""}'
        reports.append(DataReport(cfg.filename or 'All data', '', named, count, together))
    return reports


def _check_files(files: list[list['_Part']], images: bool, workers: int) -> tuple[list[DataReport], Findings]:
    """A report for each file, and what was found in several together."""
    reports, groups = [], []
    for parts in track(files, 'Checking annotation files', delay=0):
        findings, dataset = Findings(), parts[0].dataset
        folder = dataset.data_prefix['img']
        dataset.prepare_files()
        checked = check_annotations(dataset, findings)
        there = find_images(checked.images, folder, findings)
        if images and there:
            read_images(there, workers, findings)
        name = dataset.ann_file if dataset.split else dataset.title
        splits = tuple(split for split in SPLITS if any(split in part.splits for part in parts))
        reports.append(DataReport(name, folder, splits, checked.counts, findings, checked.boxes))
        groups += [Group(part.splits, _images_of(part.dataset, there), folder, findings) for part in parts]
    together = Findings()
    copies = find_copies(groups, together, within=images)
    if images:
        find_near_duplicates(groups, together, copies)
    return reports, together


class _Part(NamedTuple):
    """A data set that is not read yet, and the splits that use it."""

    dataset: DetDataset
    splits: list[str]


def _files(cfg: Config) -> list[list[_Part]]:
    """For each annotation file the different data sets on it: several if the file is divided."""
    files: dict[tuple, dict[tuple, _Part]] = {}
    for split in SPLITS:
        for leaf in leaves((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
            dataset = DATASETS.build({**leaf, 'pipeline': [], 'lazy_init': True})
            if not isinstance(dataset, DetDataset):
                raise ConfigError(f'{split}_dataloader has a {type(dataset).__name__}: only a DetDataset is checked')
            file = dataset.source[:3] if dataset.split else dataset.source
            part = files.setdefault(file, {}).setdefault(dataset.source, _Part(dataset, []))
            part.splits.extend([split] if split not in part.splits else [])
    return [list(parts.values()) for parts in files.values()]


def _images_of(dataset: DetDataset, there: list[ImageFile]) -> list[ImageFile]:
    """The images of ``there`` that a divided data set uses."""
    if dataset.split is None:
        return there
    try:
        content = dataset.annotations()
    except DataError:  # building the data sets reports it
        return []
    used = {os.path.join(dataset.data_prefix['img'], image['file_name']) for image in content.images}
    return [image for image in there if image.path in used]


@contextmanager
def _quiet() -> Iterator[None]:
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_together(cfg: Config, findings: Findings, *, refused: bool) -> None:
    """Build the data sets, the model and the evaluators, and add their errors to ``findings``.

    If an annotation file was ``refused`` already, the errors of data sets are not repeated.
    """
    built: dict[str, Any] = {}
    stride = _finest_stride(cfg.get('model'))
    measured: set[tuple] = set()
    trained: Counter[str] = Counter()
    for split in (split for split in SPLITS if cfg.get(f'{split}_dataloader') is not None):
        config = copy.deepcopy(cfg[f'{split}_dataloader']['dataset'])
        sizes = [_size_after(entry(leaf, 'pipeline') or ()) for leaf in leaves(config)]
        with _noting(Findings() if refused else findings, 'data set refused', f'{split}_dataloader: '):
            for leaf in leaves(config):
                leaf['pipeline'] = []  # no image is read
            built[split] = DATASETS.build(config)
        for leaf, size in zip(leaves(built.get(split)), sizes, strict=False):
            counts = _check_labels(leaf, split, findings)
            trained.update(counts if split == 'train' else ())
            if stride and size and leaf.source not in measured:
                measured.add(leaf.source)
                _check_sizes(leaf, split, size, stride, findings)
    for name, count in trained.items():
        if count < FEW:
            findings.add('class with few boxes', f'{name!r} has {count}')
    _check_classes(cfg, built, findings)
    for split, dataset in built.items():
        _check_evaluators(cfg.get(f'{split}_evaluator'), dataset, split, findings)


@contextmanager
def _noting(findings: Findings, kind: str, where: str = '') -> Iterator[None]:
    """A UserError ends the context, and is added to ``findings``."""
    try:
        yield
    except UserError as error:
        findings.add(kind, f'{where}{error}')


def _check_labels(dataset: DetDataset, split: str, findings: Findings) -> dict[str, int]:
    """The number of objects of each class that has one."""
    records = map(dataset.get_data_info, range(len(dataset)))
    counts = Counter(label for record in records for label in record['gt_labels'][~record['gt_crowd']].tolist())
    for label, name in enumerate(dataset.metainfo['classes']):
        if not counts[label] and (name != UNUSED_CLASS or dataset.cat_ids[label] is not None):
            findings.add('class without a box', f'{split}_dataloader: {name!r} in {dataset.title}')
    for reason, count in dataset.left_out.items():
        findings.add('image left out of training', f'{split}_dataloader: {count} {reason}')
    return {dataset.metainfo['classes'][label]: count for label, count in counts.items()}


def _size_after(pipeline: Any) -> Size | None:
    """The largest size that a pipeline gives an image, if it has a transform that tells it."""
    steps = [step for step in pipeline if isinstance(step, dict)]
    known = [TRANSFORMS.build(step) for step in steps if hasattr(_kind(step), 'largest_size')]

    @cache
    def size(height: int, width: int) -> tuple[int, int]:
        for transform in known:
            height, width = transform.largest_size(height, width)
        return height, width

    return size if known else None


def _kind(step: dict[str, Any]) -> Any:
    return step['type'] if callable(step.get('type')) else TRANSFORMS.get(str(step.get('type')))


def _finest_stride(model: Any) -> float | None:
    """The smallest stride of the levels in the config of a model: pixels of the network's input for each cell."""
    inner = model.values() if isinstance(model, dict) else model if isinstance(model, (list, tuple)) else ()
    found = [stride for value in inner if (stride := _finest_stride(value)) is not None]
    strides = list(model.get('strides') or ()) if isinstance(model, dict) else []
    if all(isinstance(stride, (int, float)) for stride in strides) and strides == sorted(set(strides)):
        found += strides[:1]
    return min(found, default=None)


def _check_sizes(dataset: DetDataset, split: str, size: Size, stride: float, findings: Findings) -> None:
    """Find objects that are smaller than a cell of the finest level after the pipeline has resized their image."""
    for record in map(dataset.get_data_info, range(len(dataset))):
        height, width = size(record['height'], record['width'])
        scale = np.array([width / record['width'], height / record['height']])
        boxes, labels = (record[key][~record['gt_crowd']] for key in ('gt_bboxes', 'gt_labels'))
        sides = (boxes[:, 2:] - boxes[:, :2]) * scale
        for k in np.flatnonzero((sides.min(axis=1) < stride) & (sides.min(axis=1) > 0)).tolist():
            name = dataset.metainfo['classes'][labels[k]]
            w, h = sides[k]
            example = f'{split}_dataloader: {name!r} in {Path(record["img_path"]).name} gets {w:.1f}x{h:.1f} pixels'
            place = Place(record['img_path'], boxes[k : k + 1].tolist(), [name])
            findings.add('object too small for the network', f'{example}, a cell has {stride:g}', place)


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
    for split in built if 'train' in built else ():  # training is equal to itself
        with _noting(findings, 'classes refused'):
            compare_classes(classes['train'], 'train_dataloader', built[split], f'{split}_dataloader')


def _check_evaluators(evaluators: Any, dataset: Any, split: str, findings: Findings) -> None:
    if isinstance(evaluators, dict) and 'metrics' in evaluators:
        evaluators = evaluators['metrics']
    for evaluator in filter(None, evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]):
        with _noting(findings, 'evaluation refused', f'{split}_evaluator: '):
            metric = METRICS.build(evaluator)
            if hasattr(metric, 'use_dataset'):
                metric.use_dataset(dataset)
            for doubt in getattr(metric, 'doubts', ()):
                findings.add('said by the evaluator', f'{split}_evaluator: {doubt}')
            if not getattr(metric, 'has_object', True):
                findings.add('nothing to evaluate', f'{split}_evaluator: no object of the tested classes')
