"""Names and category ids of a config's classes, and ``num_classes=None``, which the data set resolves."""

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger, print_log

from frdet.datasets.annotations import Id
from frdet.datasets.base import categories_of
from frdet.datasets.classes import UNUSED_CLASS
from frdet.datasets.wrappers import entry, leaves, refuse_different_classes
from frdet.errors import ConfigError, DataError
from frdet.registry import DATASETS, in_config_scope


def resolve_num_classes(cfg: Config, classes: Callable[[], Sequence[str]]) -> None:
    """Replace every ``num_classes=None`` in ``model``, at any depth, by the number of ``classes()``.

    Raises:
        ConfigError: ``classes()`` is empty.
    """
    open_keys = list(_open_num_classes('model', cfg.get('model')))
    if not open_keys:
        return
    key_paths = ', '.join(f'{key_path}.num_classes' for key_path, _ in open_keys)
    names = classes()
    if not names:
        raise ConfigError(f'{key_paths} is None, and the data set names no class: set it to a number')
    for _, node in open_keys:
        node['num_classes'] = len(names)


def _open_num_classes(key_path: str, node: Any) -> Iterator[tuple[str, dict]]:
    """The dicts in ``node`` whose ``num_classes`` is None, with their key paths."""
    if isinstance(node, dict) and node.get('num_classes', 0) is None:
        yield key_path, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, inner in items:
        yield from _open_num_classes(f'{key_path}.{key}', inner)


@in_config_scope
def classes_of_split(cfg: Config, split: str) -> Sequence[str]:
    """Class names of the ``train``, ``val`` or ``test`` data set, which is built for that.

    Raises:
        DataError: the data set is missing or wrong.
    """
    with _unlogged():
        dataset = DATASETS.build(copy.deepcopy(cfg[f'{split}_dataloader'].dataset))
    return (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Log errors only: the Runner builds the data set again, and logs its sentences then."""
    handlers = MMLogger.get_current_instance().handlers
    levels = [handler.level for handler in handlers]
    try:
        for handler in handlers:
            handler.setLevel(logging.ERROR)
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


def tested_data(cfg: Config) -> Any:
    """The data set of ``test_dataloader`` in a config, or None."""
    return (cfg.get('test_dataloader') or {}).get('dataset')


@in_config_scope
def declared_classes(cfg: Config) -> tuple[str, ...]:
    """Class names of the test data without building them: no image needs to exist.

    They come from ``metainfo`` in the config, or else from the data set's class, or else from the annotation file.

    Raises:
        DataError: no annotation file can be read.
        ConfigError: joined data sets have different classes.
    """
    found, errors = [], []
    for leaf in leaves(tested_data(cfg)):
        try:
            found.append(_given_classes(leaf) or tuple(categories_of(leaf)))
        except DataError as error:
            errors.append(error)
    if not found:
        raise errors[0] if errors else DataError('the config has no test_dataloader with a data set')
    refuse_different_classes(found, 'test_dataloader')
    return found[0]


def _given_classes(leaf: Any) -> tuple[str, ...]:
    """The class names that are known without the annotation file; empty if the file has to be read."""
    meta = getattr(leaf, 'metainfo', None)  # of a data set that is built
    if isinstance(leaf, dict):
        meta = leaf.get('metainfo')
        kind = leaf['type'] if callable(leaf['type']) else DATASETS.get(leaf['type'])
        read: Any = getattr(kind, '_load_metainfo', None)  # MMEngine's, which knows METAINFO and text files
        meta = read(meta) if read is not None else meta
    classes = (meta or {}).get('classes') or ()
    if isinstance(classes, str):
        raise DataError(f'metainfo.classes is {classes!r}, which is no file')
    return tuple(classes)


@in_config_scope
def category_ids(cfg: Config, classes: Sequence[str]) -> list[Id | None]:
    """The id of each of ``classes`` in the annotations of the test data.

    If the annotations cannot be read or lack a class, the ids are label + 1, and a warning says so. The class N/A has
    the id None, unless a category has this name.

    Raises:
        ConfigError: joined data sets have two ids for one class, or two classes for one id.
    """
    name_of: dict[Id, str] = {}
    id_of: dict[str, Id] = {}
    reason = 'the config has no test data'
    for leaf in leaves(tested_data(cfg)):
        path = Path(entry(leaf, 'data_root') or '', entry(leaf, 'ann_file') or '')
        try:
            categories = categories_of(leaf)
        except DataError as error:
            reason = str(error)
            continue
        reason = f'{path} lacks a class of the model'
        for name, number in categories.items():
            if name not in classes:
                continue
            clash = ''
            if id_of.setdefault(name, number) != number:
                clash = f'{name!r} has the category id {id_of[name]} in one test file, and {number} in {path}'
            elif name_of.setdefault(number, name) != name:
                clash = f'category id {number} is {name_of[number]!r} in one test file, {name!r} in {path}'
            if clash:
                raise ConfigError(f'Joined data sets: {clash}. Give a config that is tested on one of the files')
    if all(name in id_of or name == UNUSED_CLASS for name in classes):
        return [id_of.get(name) for name in classes]
    print_log(f'Category ids are 1 for the first class and so on: {reason}', logger='current', level=logging.WARNING)
    return [label + 1 for label in range(len(classes))]
