import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from frdet.config.values import NOTHING, Declared, declared, fits, found, mismatch


@pytest.mark.parametrize(
    ('value', 'annotation'),
    [
        (3, int),
        (3, float),
        ((1, 2), list[int]),
        ([1, 2], tuple[int, int]),
        ([1, 2, 3], tuple[int, ...]),
        ([], tuple[int, ...]),
        ((1, 2), Sequence[float]),
        ([1, 2], Iterable),
        (None, int | None),
        (None, Optional[int]),  # noqa: UP045
        ('sum', Literal['sum', 'avg']),
        (ConfigDict(a=1), dict),
        (ConfigDict(a=1), dict[str, int]),
        (ConfigDict(a=1), Mapping),
        (ConfigDict(type='ResNet'), nn.Module),
        (ConfigDict(type='ResNet'), nn.Module | dict),
        (ConfigDict(type='f'), Callable),
        (3, Any),
        (3, NOTHING),
        (torch.zeros(1), int),  # not written in a config as such: nothing is known of it
    ],
)
def test_fits(value, annotation):
    assert fits(value, annotation)


@pytest.mark.parametrize(
    ('value', 'annotation'),
    [
        (3.5, int),
        (True, int),
        (True, float),
        (1, bool),
        ('3', int),
        (3, str),
        ('abc', Sequence[str]),
        ('abc', Path),
        ([1, 2, 3], tuple[int, int]),
        (['a'], list[int]),
        (None, int),
        ('max', Literal['sum', 'avg']),
        ([1], dict),
        ({'a': 'x'}, dict[str, int]),
        (ConfigDict(type='ResNet'), int),
        (ConfigDict(type='ResNet'), Sequence[dict]),
        (ConfigDict(a=1), nn.Module),
        (3, nn.Module),
        (3, Callable),
    ],
)
def test_does_not_fit(value, annotation):
    assert not fits(value, annotation)


class _Base:
    def __init__(self, *, width: int, name: str = None, rate=0, unknown: 'NoSuchName' = 1):  # noqa: F821
        pass


class _Child(_Base):
    def __init__(self, *, depth: float = 1, **kwargs):
        super().__init__(**kwargs)


def test_declared_is_read_up_the_chain():
    assert declared(_Child)['depth'] == Declared(float, 1)
    assert declared(_Child)['width'] == Declared(int, NOTHING)
    assert declared(_Child)['rate'] == Declared(NOTHING, 0)
    assert declared(_Child)['unknown'] == Declared(NOTHING, 1)
    assert 'none' not in declared(_Child)
    assert declared(os.getcwd) == {}


@pytest.mark.parametrize(
    ('value', 'said', 'old', 'expected'),
    [
        (3, Declared(int), NOTHING, None),
        ('x', Declared(int), NOTHING, 'int'),
        (None, Declared(str, None), NOTHING, None),  # name: str = None
        (None, Declared(str), 'x', 'str'),
        (None, Declared(), 'x', None),
        ('/b', Declared(Path), '/a', None),  # a str was there, and worked
        (3, Declared(Path), '/a', "str, as '/a'"),
        (0.5, Declared(), 3, None),
        ('x', Declared(), 3, 'int, as 3'),
        (True, Declared(), 3, 'int, as 3'),
        (1, Declared(), True, 'bool, as True'),
        ([1], Declared(), (1,), None),
        (3, Declared(), {'a': 1}, 'a dict'),
        ((1, 2), Declared(default=1), NOTHING, None),  # stride=1 takes a pair as well
        (0.5, Declared(default=0), NOTHING, None),
        ('x', Declared(default=0), NOTHING, 'int, as 0'),
        ('x', Declared(default=False), NOTHING, None),
        (3, Declared(), NOTHING, None),
    ],
)
def test_mismatch(value, said, old, expected):
    assert mismatch(value, said, old) == expected


def test_shown_without_module_paths():
    assert mismatch(3, Declared(nn.Module | dict[str, Path] | None)) == 'Module | dict[str, Path] | None'
    assert found(ConfigDict(a=1)) == "found {'a': 1} (dict)"
