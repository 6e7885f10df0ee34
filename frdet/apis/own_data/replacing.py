"""The data sets of a config replaced by those of a folder: the same classes, pipelines and filters."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from frdet.apis.classes import declared_classes
from frdet.apis.own_data.sources import UNLABELLED, count_boxes, parts_of, read_part
from frdet.apis.own_data.summary import few
from frdet.checkpoints.runs import load_checkpoint
from frdet.datasets.formats.recognising import Found, recognise
from frdet.datasets.wrappers import leaves
from frdet.errors import ConfigError, DataError

#: Arguments of a data set that stay when its data are replaced.
KEPT = ('pipeline', 'with_masks', 'filter_cfg', 'test_mode', 'serialize_data', 'lazy_init', 'max_refetch')


def use_data(cfg: Config, path: str | Path, *, checkpoint: str | None = None) -> None:
    """Replace the data sets of ``cfg``, in place, by those in a folder or file with the same classes.

    For training, the data loaders get the parts of the folder; a folder without parts is divided as by
    ``new_experiment``. For testing, the test loader gets the part test, or else val, or else all images. Pipelines,
    filters and the order of the classes stay, and so do background images without labels, which are joined to the data.

    Args:
        path: data in a format that ``recognise`` knows.
        checkpoint: file of the weights to be tested; None: for training.

    Raises:
        DataError: the folder has no labels, or none of the classes.
        ConfigError: the config has no data set to replace.
    """
    found = recognise(path)
    if found.reader == UNLABELLED:
        raise DataError(f'--data {path} has images and no labels')
    classes = _classes(cfg, checkpoint)
    for part, arguments in _chosen(found, testing=checkpoint is not None).items():
        name = f'{part}_dataloader'
        whole = (cfg.get(name) or {}).get('dataset')
        old = [one for one in leaves(whole) if one.get('type') != UNLABELLED]
        background = [one for one in leaves(whole) if one.get('type') == UNLABELLED]
        if not old:
            raise ConfigError(f'{name} of {cfg.filename or "the config"} has no data set to replace by --data {path}')
        _compare(found, arguments, classes, part)
        kept = {key: old[0][key] for key in KEPT if key in old[0]}
        meta = dict(classes=list(classes))
        new = dict(type=found.reader, data_root=found.root, **arguments, metainfo=meta, **kept)
        for one in background:
            one['metainfo'] = ConfigDict(meta)
        if len(old) == 1:  # wrappers around it stay
            old[0].clear()
            old[0].update(ConfigDict(new))
        elif background:
            cfg[name]['dataset'] = ConfigDict(type='ConcatDataset', datasets=[new, *background])
        else:
            cfg[name]['dataset'] = ConfigDict(new)
        if background:
            print_log(f'--data {path}: the background images of the config stay in {part}', logger='current')
        _drop_truth(cfg.get(f'{part}_evaluator'))


def _chosen(found: Found, *, testing: bool) -> dict[str, dict[str, Any]]:
    """The arguments of the data set for each data loader that is used."""
    if testing:
        name = next((name for name in ('test', 'val') if name in found.parts), None)
        if name is None and len(found.parts) > 1:
            raise DataError(f'{found.root} has {" and ".join(found.parts)}: expected a part test or val')
        return {'test': found.parts[name] if name else next(iter(found.parts.values()))}
    parts = parts_of(found).arguments
    return {'test': parts['val'], **parts}


def _classes(cfg: Config, checkpoint: str | None) -> Sequence[str]:
    """The class names of the checkpoint, or else of the config."""
    meta = load_checkpoint(checkpoint)['meta'] if checkpoint is not None else {}
    if classes := (meta.get('dataset_meta') or {}).get('classes'):
        return classes
    try:
        return declared_classes(cfg)
    except DataError as error:
        raise DataError(
            f'The order of the classes is not known ({error}): name them in the config, by '
            'test_dataloader.dataset.metainfo.classes'
        ) from None


def _compare(found: Found, arguments: Mapping[str, Any], classes: Sequence[str], part: str) -> None:
    """Warn of classes that only one side has. The data set itself refuses misspelt ones."""
    counts = count_boxes(read_part(found, arguments))
    if unknown := [name for name, count in counts.items() if count and name not in classes]:
        print_log(
            f'{found.root} has boxes of {few(unknown)}, which the config does not know: they are left out of {part}',
            logger='current',
            level=logging.WARNING,
        )


def _drop_truth(evaluators: Any) -> None:
    """Let evaluators take the truth from the data set, instead of from another file."""
    if isinstance(evaluators, Mapping) and 'metrics' in evaluators:
        evaluators = evaluators['metrics']
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if isinstance(evaluator, dict):
            evaluator.pop('ann_file', None)
