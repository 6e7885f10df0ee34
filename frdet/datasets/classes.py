"""The classes of a data set: chosen by a config, or all of the annotations."""

import logging
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from frdet.datasets.annotations import Id
from frdet.errors import ConfigError, DataError, near_names

#: Name of a label without a category, so that labels can follow the numbers of another project.
UNUSED_CLASS = 'N/A'


def choose_classes(names: Any, categories: dict[str, Id], ann_file: str) -> tuple[tuple[str, ...], list[Id | None]]:
    """The classes of a data set and their category ids.

    Args:
        names: the chosen classes; None chooses all ``categories``.
        categories: category ids by class name.
        ann_file: where the categories are from, for messages.

    Raises:
        ConfigError: ``names`` is no list of different names.
        DataError: a class looks like a misspelt category, or the annotations have none of the classes.
    """
    names = tuple(categories) if names is None else names
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f'metainfo.classes is {names!r}: expected a list of class names, or the path of a text file with one '
            'name in a line'
        )
    used = [name for name in names if name != UNUSED_CLASS or name in categories]
    if repeated := sorted({name for name in used if used.count(name) > 1}):
        raise ConfigError(f'metainfo.classes names {", ".join(repeated)} more than once: a class has one label')
    if lacking := [name for name in used if name not in categories]:
        _check_lacking(lacking, used, list(categories), ann_file)
    return tuple(names), [categories.get(name) for name in names]


def _check_lacking(lacking: list[str], used: list[str], categories: list[str], ann_file: str) -> None:
    """Refuse ``lacking`` classes that resemble an unused category, and so are misspelt. Log the other ones."""
    free = [name for name in categories if name not in used]
    found = {name: near_names(name, free, sure=len(lacking) < len(used)) for name in lacking}
    near = next((near for near in found.values() if near), [])
    if near or len(lacking) == len(used):
        hint = f'did you mean {" or ".join(near)}?' if near else f'it has {enumerate_names(categories)}'
        wrong = [repr(name) for name in lacking if found[name] or not near]
        raise DataError(f'{ann_file} has no class {enumerate_names(wrong)}: {hint}')
    print_log(
        f'{ann_file} has no category {enumerate_names([repr(name) for name in lacking])}: the class has no box there',
        logger='current',
        level=logging.WARNING,
    )


def with_class_list(metainfo: dict[str, Any] | None) -> dict[str, Any] | None:
    """``metainfo`` with the lines of a text file of classes, without a byte order mark and blank lines."""
    path = (metainfo or {}).get('classes')
    if not isinstance(path, str) or not Path(path).is_file():
        return metainfo
    try:
        lines = Path(path).read_text(encoding='utf-8-sig').splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f'metainfo.classes: {path} is no text in UTF-8 ({error.reason}): save it as UTF-8') from None
    return {**(metainfo or {}), 'classes': [line.strip() for line in lines if line.strip()]}


def enumerate_names(names: list[str]) -> str:
    """The first ten ``names``, and how many more there are."""
    return ', '.join(names[:10]) + (f' and {len(names) - 10} more' if len(names) > 10 else '')
