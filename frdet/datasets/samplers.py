"""Batches of images with similar shapes, so that padding wastes little."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from frdet.errors import ConfigError
from frdet.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class AspectRatioBatchSampler(Sampler):
    """Batches of either wide images (width > height) or other images, as in detectron2.

    A batch is handed out as soon as it is full. When ``sampler`` ends, the rest of both groups is joined. So an epoch
    has the same number of batches in any order and on every rank, which a distributed run needs.

    Args:
        sampler: gives indices of ``sampler.dataset``, epoch by epoch or without end.
        batch_size: images in a batch.
        drop_last: leave out a last batch that is not full.

    Raises:
        ConfigError: ``batch_size`` is not positive, or records have no image sizes.
    """

    def __init__(self, *, sampler: Sampler, batch_size: int, drop_last: bool = False):
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f'batch_size is {batch_size!r}: expected a positive integer')
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._dataset: Any = sampler.dataset  # type: ignore[attr-defined]
        self._wide = np.full(len(self._dataset), -1, dtype=np.int8)  # -1 until an image is asked for

    def __iter__(self) -> Iterator[list[int]]:
        groups: tuple[list[int], list[int]] = ([], [])
        for index in self.sampler:
            group = groups[self._is_wide(index)]
            group.append(index)
            if len(group) == self.batch_size:
                yield group[:]
                group.clear()
        rest = groups[0] + groups[1]
        for start in range(0, len(rest), self.batch_size):
            batch = rest[start : start + self.batch_size]
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        """Batches in an epoch of this rank."""
        count = len(self.sampler) / self.batch_size  # type: ignore[arg-type]
        return math.floor(count) if self.drop_last else math.ceil(count)

    def _is_wide(self, index: int) -> int:
        if self._wide[index] < 0:
            try:
                record = self._dataset.get_data_info(index)
                self._wide[index] = record['width'] > record['height']
            except (AttributeError, KeyError):
                raise ConfigError(
                    f'AspectRatioBatchSampler needs image sizes, but get_data_info of {type(self._dataset).__name__} '
                    'gives no width and height: add them, or delete batch_sampler'
                ) from None
        return int(self._wide[index])
