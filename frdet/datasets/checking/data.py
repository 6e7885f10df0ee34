"""Checking all data that a config names."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import init_default_scope

from frdet.datasets.checking.annotations import check_annotations
from frdet.datasets.checking.findings import Findings
from frdet.datasets.checking.images import find_images, read_images
from frdet.datasets.coco import CocoDataset
from frdet.errors import ConfigError
from frdet.progress import track
from frdet.registry import DATASETS, SCOPE


class DataReport(NamedTuple):
    """What was found in an annotation file and its images."""

    ann_file: str
    folder: str
    splits: tuple[str, ...]
    counts: str
    findings: Findings

    def __str__(self) -> str:
        title = f'{self.ann_file} ({", ".join(self.splits)}): {self.counts}; images in {self.folder}'
        return f'{title}\n{self.findings.table() if self.findings else "Nothing to report"}'


def check_data(cfg: Config, *, images: bool = False, workers: int | None = None) -> list[DataReport]:
    """Check every annotation file that the data loaders of ``cfg`` read, once, and that its images are there.

    Args:
        cfg: a config that passed ``check_config``.
        images: read every image, too.
        workers: processes that read images; one for each core that this process may use where None.

    Raises:
        ConfigError: a data set is no ``CocoDataset``, there is none, or ``workers`` is no positive number.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f'{workers} workers: expected at least 1')
    init_default_scope(cfg.get('default_scope') or SCOPE)
    splits_of: dict[tuple[str, str], list[str]] = {}
    for split in ('train', 'val', 'test'):
        for leaf in _data_sets((cfg.get(f'{split}_dataloader') or {}).get('dataset')):
            dataset = DATASETS.build({**leaf, 'pipeline': [], 'lazy_init': True})
            if not isinstance(dataset, CocoDataset):
                raise ConfigError(f'{split}_dataloader has a {type(dataset).__name__}: only a CocoDataset is checked')
            splits = splits_of.setdefault((dataset.ann_file, dataset.data_prefix['img']), [])
            splits += [split] if split not in splits else []
    if not splits_of:
        raise ConfigError('The config has no data loader with a dataset: nothing to check')
    workers = workers or len(os.sched_getaffinity(0))
    files = track(splits_of.items(), 'Checking annotation files', total=len(splits_of), delay=0)
    return [_check_file(*paths, tuple(splits), images, workers) for paths, splits in files]


def _data_sets(node: Any) -> Iterator[dict[str, Any]]:
    """The data sets inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    if not isinstance(node, dict):
        return
    inner = [*([node['dataset']] if 'dataset' in node else []), *node.get('datasets', [])]
    for one in inner:
        yield from _data_sets(one)
    if not inner:
        yield node


def _check_file(ann_file: str, folder: str, splits: tuple[str, ...], images: bool, workers: int) -> DataReport:
    findings = Findings()
    records, counts = check_annotations(ann_file, findings)
    there = find_images(records, folder, findings)
    if images and there:
        read_images(there, workers, findings)
    return DataReport(ann_file, folder, splits, counts, findings)
