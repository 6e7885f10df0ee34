"""Batches: images of similar shapes together, and from any position on, so that a resumed run gets the same batches.

The random numbers of an image come from generators that are seeded with its position: seed of the run, process,
iteration and position in the batch. So the number and the history of the workers do not matter, and a resumed run need
not read earlier images.
"""

import math
import random
from collections.abc import Callable, Iterator, MutableMapping
from functools import cache, partial
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from frdet.datasets.wrappers import leaves
from frdet.errors import ConfigError, DataError
from frdet.registry import DATA_SAMPLERS

#: Settings that PyTorch refuses where a loader has no worker process.
WORKER_SETTINGS = ('persistent_workers', 'prefetch_factor', 'timeout')
#: Settings that a resumable loader takes from the loader that it replaces.
SETTINGS = (
    *WORKER_SETTINGS, 'num_workers', 'pin_memory', 'worker_init_fn', 'multiprocessing_context', 'generator',
    'pin_memory_device', 'in_order',
)  # fmt: skip


def resolve_workers(cfg: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Change every ``*_dataloader`` of a config in place, before MMEngine's Runner is built; returns ``cfg``.

    Without workers, the settings that need workers are dropped, so that ``num_workers=0`` is the only change to make.
    With a GPU, ``pin_memory`` is true by default: batches in pinned memory are copied while the GPU computes.
    """
    for name in cfg:
        loader = cfg[name]
        if not (name.endswith('_dataloader') and isinstance(loader, MutableMapping)):
            continue
        if torch.cuda.is_available():
            loader.setdefault('pin_memory', True)
        if not loader.get('num_workers', 0):
            for setting in WORKER_SETTINGS:
                loader.pop(setting, None)
    return cfg


@DATA_SAMPLERS.register_module()
class AspectRatioBatchSampler(Sampler):
    """Batches of either wide images (width > height) or other images, as in detectron2, so that padding wastes little.

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
        batches = len(self.sampler) / self.batch_size  # type: ignore[arg-type]
        return math.floor(batches) if self.drop_last else math.ceil(batches)

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


def seed_generators(*position: int) -> None:
    """Seed the generators of Python, NumPy and torch, GPUs included, with numbers >= 0."""
    seed = int(np.random.SeedSequence(position).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    # Where CUDA has not begun, torch.manual_seed keeps the seed with the text of the stack for later: a millisecond.
    (torch if _has_accelerator() else torch.default_generator).manual_seed(seed)


@cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


class Place(NamedTuple):
    """The index of an image in the data set, and its position in the run: see the module."""

    image: int
    position: tuple[int, ...]


def read_batch(dataset: Dataset, places: list[Any]) -> list[Any]:
    """The images of a batch, each read with seeded generators. Another loader may give indices instead of places."""
    items = []
    for place in places:
        if isinstance(place, Place):
            seed_generators(*place.position)
            place = place.image
        items.append(dataset[place])
    return items


def _collate(collate: Callable, parts: list[Any], items: list[Any]) -> tuple[Any, list[str]]:
    """Collate in the process that read the images, and add the messages of ``DetDataset.unpacked`` to the batch."""
    messages = [message for part in parts for message in part.unpacked]
    for part in parts:
        part.unpacked.clear()
    return collate(items), messages


class _Batches(Sampler):
    """The batches of another batch sampler from a position on, for one epoch or without end."""

    def __init__(self, inner: Any, *, endless: bool):
        self.inner = inner
        self.sampler = inner.sampler
        self.batch_size = inner.batch_size
        self.endless = endless
        self.skip = 0
        self.position: tuple[int, ...] = (0, 0, 0)

    def __len__(self) -> int:
        """Batches in an epoch of this process."""
        return len(self.inner)

    def __iter__(self) -> Iterator[list[Place]]:
        stream = self._epochs() if self.endless else iter(self.inner)
        seed, rank, first = self.position
        for iteration, batch in enumerate(islice(stream, self.skip, None), first):
            yield [Place(index, (seed, rank, iteration, number)) for number, index in enumerate(batch)]

    def _epochs(self) -> Iterator[list[int]]:
        for epoch in count():
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)
            batch = None
            for batch in self.inner:  # noqa: UP028 (an epoch without a batch is an error)
                yield batch
            if batch is None:
                raise DataError('The training data make no whole batch: lower batch_size, or set drop_last=False')


class ResumableLoader(DataLoader):
    """The batches of ``loader`` from the position of ``start`` on. Earlier images are not read.

    Args:
        loader: a loader with a batch sampler.
        seed: seed of the run. A sampler built with it gets the seed of ``start``, which resuming may have changed.
        endless: after an epoch, begin the next one with the same workers.
    """

    def __init__(self, loader: DataLoader, *, seed: int, endless: bool = False):
        dataset: Any = loader.dataset
        self._batches = _Batches(loader.batch_sampler, endless=endless)
        self._sampler_has_seed = getattr(self._batches.sampler, 'seed', None) == seed
        parts = [part for part in leaves(dataset) if hasattr(part, 'unpacked')]
        for part in parts:
            part.unpacked = []
        dataset.__getitems__ = partial(read_batch, dataset)  # which PyTorch calls with what a batch sampler gives
        settings = {name: getattr(loader, name) for name in SETTINGS}
        settings['collate_fn'] = partial(_collate, loader.collate_fn, parts)
        self.broken_images: list[str] = []  # of the last batch; see ``DetDataset``
        super().__init__(dataset, batch_sampler=self._batches, **settings)

    def start(self, *, seed: int, rank: int, iteration: int, skip: int) -> None:
        """Let the next pass begin after ``skip`` batches, with the batch of ``iteration``."""
        self._batches.position = (seed, rank, iteration)
        self._batches.skip = skip
        if self._sampler_has_seed:
            self._batches.sampler.seed = seed

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """A generator, because MMEngine makes an iterator before it knows where to resume."""
        self._pass = super().__iter__()
        for batch, broken_images in self._pass:
            self.broken_images = broken_images
            yield batch


def end_workers(loader: DataLoader) -> None:
    """End the worker processes of a loader, which a later pass starts again.

    Python's garbage collector ends them otherwise, and closes the queue through which they are told before it tells
    them: each takes five seconds then, in the middle of other work.
    """
    iterators: list[Any] = [loader._iterator, getattr(loader, '_pass', None)]
    for iterator in iterators:
        if hasattr(iterator, '_shutdown_workers'):
            iterator._shutdown_workers()
    loader._iterator = None
