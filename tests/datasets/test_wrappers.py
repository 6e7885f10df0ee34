"""What is inside wrappers of data sets, and joined sets whose parts do not fit together."""

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ClassBalancedDataset, RepeatDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import DefaultScope
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import Subset

from frdet.datasets import ConcatDataset
from frdet.datasets.wrappers import category_ids_of, leaves
from frdet.errors import ConfigError
from frdet.registry import DATASETS


class Records(BaseDataset):
    """As many records as ``count``; ``metainfo`` as given."""

    def __init__(self, count=1, lazy_classes=(), **kwargs):
        self.count, self.lazy_classes = count, lazy_classes
        super().__init__(**kwargs)

    def load_data_list(self):
        if self.lazy_classes:
            self._metainfo['classes'] = self.lazy_classes
        return [{'number': k} for k in range(self.count)]

    def get_cat_ids(self, idx):
        return [0]


A, B = {'type': 'A', 'pipeline': ['a']}, {'type': 'B'}


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        (None, []),
        (A, [A]),
        ({'type': 'Repeat', 'dataset': A}, [A]),
        ({'type': 'Concat', 'datasets': [A, B]}, [A, B]),
        (
            {'type': 'Concat', 'datasets': (A, {'type': 'Repeat', 'dataset': {'type': 'Balanced', 'dataset': B}})},
            [A, B],
        ),
        ({'type': 'Repeat', 'dataset': {'type': 'Concat', 'datasets': [B, A, B]}}, [B, A, B]),
        (
            {'type': 'Named', 'dataset': 'coco', 'datasets': None},
            [{'type': 'Named', 'dataset': 'coco', 'datasets': None}],
        ),
    ],
)
def test_leaves_of_a_config(config, expected):
    assert list(leaves(config)) == expected


def test_the_outermost_with_an_argument():
    """A wrapper with a pipeline of its own, whose inner data set has none."""
    outer = {'type': 'Mosaic', 'pipeline': ['m'], 'dataset': A}
    assert list(leaves({'type': 'Repeat', 'dataset': outer}, having='pipeline')) == [outer]
    assert list(leaves({'type': 'Concat', 'datasets': [outer, A, B]}, having='pipeline')) == [outer, A, B]


def test_leaves_of_built_data_sets():
    one, two = Records(), Records()
    one.dataset = 'an attribute of its own'
    for wrapped, expected in [
        (one, [one]),
        (RepeatDataset(one, 2), [one]),
        (ClassBalancedDataset(one, 0.5), [one]),
        (ConcatDataset([one, two]), [one, two]),
        (Subset(TorchConcatDataset([one, RepeatDataset(two, 2)]), [0]), [one, two]),
    ]:
        found = list(leaves(wrapped))
        assert len(found) == len(expected) and all(a is b for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ('found', 'expected'),
    [
        ([[7, None, 'x']], [7, None, 'x']),
        ([[7, None, 3], [None, 5, 3]], [7, 5, 3]),  # each file lacks a class of the other one
        ([[7, 5], [7, 6]], None),
        ([[]], None),
        ([None], None),
        ([[7, 5], None], [7, 5]),  # a data set of another project has none
    ],
)
def test_category_ids(found, expected):
    sets = [Records() for _ in found]
    for one, ids in zip(sets, found, strict=True):
        if ids is not None:
            one.cat_ids = ids
    assert category_ids_of(ConcatDataset(sets)) == expected


def test_a_joined_set():
    meta = {'classes': ('cat', 'dog'), 'palette': np.zeros((2, 3)), 'skeleton': [[0, 1], [2]]}
    joined = ConcatDataset([Records(2, metainfo=meta), Records(3, metainfo=meta)])
    assert len(joined) == 5 and joined.metainfo['classes'] == ('cat', 'dog')
    assert [joined[k]['number'] for k in range(5)] == [0, 1, 0, 1, 2]


@pytest.mark.parametrize(
    ('first', 'second', 'words'),
    [
        (
            {'classes': ('cat', 'dog')},
            {'classes': ('cat', 'dog', 'cow')},
            r'datasets\.0 has the classes cat, dog, datasets\.1 has cat, dog, cow.*metainfo=dict\(classes=\[\.\.\.\]\)',
        ),
        ({'classes': ('cat', 'dog')}, {'classes': ('dog', 'cat')}, r'classes cat, dog, datasets\.1 has dog, cat'),
        ({'classes': ('cat',)}, {}, r'classes cat, datasets\.1 has none'),
        ({}, {'classes': ('cat',)}, r'classes none, datasets\.1 has cat'),
        (
            {'classes': tuple('abcdefgh')},
            {'classes': tuple('abcdefgi')},
            r'a, b, c, d, e, f, \.\.\. \(8 in all\)',
        ),
        (
            {'classes': ('cat',), 'palette': [1]},
            {'classes': ('cat',), 'palette': [2]},
            r'metainfo\.palette is 1 in datasets\.0 and 2 in datasets\.1: .*ignore_keys',
        ),
        ({'era': 1}, {'era': 'new'}, r"metainfo\.era is 1 in datasets\.0 and 'new' in datasets\.1"),
        ({'mean': np.zeros(2)}, {'mean': np.ones(2)}, r'metainfo\.mean is array'),
    ],
)
def test_parts_that_differ(first, second, words):
    with pytest.raises(ConfigError, match=words):
        ConcatDataset([Records(metainfo=first), Records(metainfo=second)])


def test_classes_that_are_known_only_once_read():
    """MMEngine compares before the files are read, and would join these two."""
    parts = [Records(lazy_classes=names, lazy_init=True) for names in (('cat',), ('dog',))]
    with pytest.raises(ConfigError, match=r'classes cat, datasets\.1 has dog'):
        ConcatDataset(parts)
    same = ConcatDataset([Records(lazy_classes=('cat',), lazy_init=True) for _ in range(2)], lazy_init=True)
    same.full_init()
    assert same.metainfo['classes'] == ('cat',)


def test_keys_that_may_differ():
    parts = [Records(metainfo={'classes': ('cat',), 'palette': [k]}) for k in (1, 2)]
    assert ConcatDataset(parts, ignore_keys='palette').metainfo['palette'] == [1]


def test_nothing_to_join():
    with pytest.raises(ConfigError, match='datasets is empty'):
        ConcatDataset([])
    with pytest.raises(TypeError, match='ignore_keys should be'):
        ConcatDataset([Records()], ignore_keys=3)


def test_the_runner_gets_the_worded_one():
    """It builds through MMEngine's registry, in frdet's scope."""
    with DefaultScope.overwrite_default_scope('frdet'), pytest.raises(ConfigError, match='datasets is empty'):
        MMENGINE_DATASETS.build(dict(type='ConcatDataset', datasets=[]))
    assert DATASETS.get('ConcatDataset') is ConcatDataset
