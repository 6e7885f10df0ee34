"""Data sets around other data sets: finding the inner ones, and joining data sets with clear errors."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dataset import ConcatDataset as MMEngineConcatDataset

from frdet.datasets.annotations import Id
from frdet.errors import ConfigError
from frdet.registry import DATASETS


def entry(dataset: Any, name: str) -> Any:
    """The argument ``name`` of a data set in a config, or the attribute of a built data set; None if it has none."""
    return dataset.get(name) if isinstance(dataset, dict) else getattr(dataset, name, None)


def leaves(dataset: Any, *, having: str = '') -> Iterator[Any]:
    """The data sets inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``; ``dataset`` if it is no wrapper.

    Args:
        dataset: a config's dict, a built data set or wrapper, also of PyTorch, or None, which has no data set inside.
        having: name of an argument. The outermost data sets with this argument are taken.
    """
    if dataset is None:
        return
    inner = []
    if not isinstance(dataset, BaseDataset):
        inner = [entry(dataset, 'dataset'), *(entry(dataset, 'datasets') or ())]
        inner = [one for one in inner if one is not None and not isinstance(one, str)]
    if not inner or (having and entry(dataset, having) is not None):
        yield dataset
        return
    for one in inner:
        yield from leaves(one, having=having)


def category_ids_of(dataset: Any) -> list[Id | None] | None:
    """The category id of every class in the annotations of a built data set; None if it has none, or inner ones differ.

    The id of a class that no annotation file has is None.
    """
    found = [ids for leaf in leaves(dataset) if (ids := getattr(leaf, 'cat_ids', None))]
    merged = [next((one for one in ids if one is not None), None) for ids in zip(*found, strict=False)]
    agree = all(one in (None, both) for ids in found for one, both in zip(ids, merged, strict=False))
    return merged if merged and agree else None


def refuse_different_classes(classes: Sequence[Any], name: str) -> None:
    """Raise ConfigError unless all parts of the joined data set ``name`` have the same classes in the same order."""
    for place, other in enumerate(classes):
        if list(other) != list(classes[0]):
            raise ConfigError(
                f'{name}: datasets.0 has the classes {_short(classes[0])}, datasets.{place} has {_short(other)}, so '
                'a label would mean two classes. Give all of them one list with metainfo=dict(classes=[...])'
            )


@DATASETS.register_module()
class ConcatDataset(MMEngineConcatDataset):
    """Several data sets, one after the other.

    Args:
        datasets: data sets with the same ``metainfo``, built or as dicts.
        lazy_init: read the annotations at first use.
        ignore_keys: keys of ``metainfo`` that may differ; the value of the first data set is used.

    Raises:
        ConfigError: there is no data set, or class names or another part of ``metainfo`` differ.
    """

    def __init__(
        self,
        datasets: Sequence[BaseDataset | dict],
        lazy_init: bool = False,
        ignore_keys: str | list[str] | None = None,
    ):
        if not datasets:
            raise ConfigError('ConcatDataset: datasets is empty, expected at least one data set')
        try:
            super().__init__(datasets, lazy_init, ignore_keys)
        except (KeyError, TypeError, ValueError):
            if hasattr(self, '_metainfo'):  # MMEngine built and compared them, but does not say what differs
                self._refuse_different()
            raise

    def full_init(self) -> None:
        """Read the annotations, and compare the classes, which may come from the files."""
        if not self._fully_initialized:
            super().full_init()
            self._metainfo = self.datasets[0].metainfo
            self._refuse_different()

    def _refuse_different(self) -> None:
        every = [dataset.metainfo for dataset in self.datasets]
        for key in sorted({key for meta in every for key in meta} - {*self.ignore_keys}):
            values = [meta.get(key, ()) for meta in every]
            if key == 'classes':
                refuse_different_classes(values, 'ConcatDataset')
                continue
            for place, value in enumerate(values):
                equal = np.array_equal if isinstance(value, np.ndarray) else operator.eq
                if type(value) is not type(values[0]) or not equal(value, values[0]):
                    raise ConfigError(
                        f'ConcatDataset: metainfo.{key} is {_short(values[0])} in datasets.0 and {_short(value)} in '
                        f'datasets.{place}: make them equal, or name {key} in ignore_keys to use the one of datasets.0'
                    )


def _short(value: Any) -> str:
    if not isinstance(value, (list, tuple)):
        return repr(value)
    return ', '.join(map(str, value[:6])) + (f', ... ({len(value)} in all)' if len(value) > 6 else '') or 'none'
