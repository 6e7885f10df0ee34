"""Batches from any position on. A resumed run, or a run with another number of workers, gets the same batches.

The random numbers of an image come from generators that are seeded with its position: seed of the run, process,
iteration and position in the batch. So the history of a worker does not matter, and earlier images need not be read.
"""

import random
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from frdet.datasets.wrappers import leaves
from frdet.errors import DataError


def seed_generators(*position: int) -> None:
    """Seed the generators of Python, NumPy and torch, GPUs included, with numbers >= 0."""
    seed = int(np.random.SeedSequence(position).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class _Index(int):
    """The index of an image, and the position that it is read for."""

    position: tuple[int, ...]


class _Reader:
    """Reads the images of a batch in PyTorch's protocol, and seeds the generators before each image."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __call__(self, indices: list[int]) -> list[Any]:
        items = []
        for index in indices:
            if isinstance(index, _Index):
                seed_generators(*index.position)
            items.append(self.dataset[int(index)])
        return items


class _Collate:
    """Collates in the process that read the images, and adds the messages of ``DetDataset.unpacked`` to the batch."""

    def __init__(self, collate: Callable, dataset: Any):
        self.collate = collate
        self.parts = [part for part in leaves(dataset) if hasattr(part, 'unpacked')]
        for part in self.parts:
            part.unpacked = []

    def __call__(self, items: list[Any]) -> tuple[Any, list[str]]:
        messages = [message for part in self.parts for message in part.unpacked]
        for part in self.parts:
            part.unpacked.clear()
        return self.collate(items), messages


class _Batches(Sampler):
    """The batches of another batch sampler from a position on, for one epoch or without end."""

    def __init__(self, inner: Any, *, endless: bool):
        self.inner = inner
        self.sampler = inner.sampler
        self.batch_size = inner.batch_size
        self.drop_last = inner.drop_last
        self.endless = endless
        self.skip = 0
        self.position: tuple[int, ...] = (0, 0, 0)

    def __len__(self) -> int:
        """Batches in an epoch of this process."""
        return len(self.inner)

    def __iter__(self) -> Iterator[list[int]]:
        stream = self._epochs() if self.endless else iter(self.inner)
        seed, rank, first = self.position
        for iteration, batch in enumerate(islice(stream, self.skip, None), first):
            yield [_index(index, (seed, rank, iteration, place)) for place, index in enumerate(batch)]

    def _epochs(self) -> Iterator[list[int]]:
        for epoch in count():
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)
            batch = None
            for batch in self.inner:  # noqa: UP028 (an epoch without a batch is an error)
                yield batch
            if batch is None:
                raise DataError('The training data make no whole batch: lower batch_size, or set drop_last=False')


def _index(value: int, position: tuple[int, ...]) -> _Index:
    index = _Index(value)
    index.position = position
    return index


_SETTINGS = (
    'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context', 'generator',
    'prefetch_factor', 'persistent_workers', 'pin_memory_device', 'in_order',
)  # fmt: skip


class ResumableLoader(DataLoader):
    """The batches of ``loader`` from the position of ``start`` on. Earlier images are not read.

    Args:
        loader: a loader with a batch sampler.
        seed: seed of the run. A sampler built with it gets the seed of ``start``, which resuming may have changed.
        endless: after an epoch, begin the next one with the same workers.
    """

    def __init__(self, loader: DataLoader, *, seed: int, endless: bool = False):
        self._batches = _Batches(loader.batch_sampler, endless=endless)
        self._sampler_has_seed = getattr(self._batches.sampler, 'seed', None) == seed
        loader.dataset.__getitems__ = _Reader(loader.dataset)  # type: ignore[attr-defined]
        settings = {name: getattr(loader, name) for name in _SETTINGS}
        settings['collate_fn'] = _Collate(loader.collate_fn, loader.dataset)
        self.broken_images: list[str] = []  # of the last batch; see ``DetDataset``
        super().__init__(loader.dataset, batch_sampler=self._batches, **settings)

    def start(self, *, seed: int, rank: int, iteration: int, skip: int) -> None:
        """Let the next pass begin after ``skip`` batches, with the batch of ``iteration``."""
        self._batches.position = (seed, rank, iteration)
        self._batches.skip = skip
        if self._sampler_has_seed:
            self._batches.sampler.seed = seed

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """A generator, because MMEngine makes an iterator before it knows where to resume."""
        for batch, self.broken_images in super().__iter__():
            yield batch
