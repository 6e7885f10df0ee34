from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dataset.dataset_wrapper import RepeatDataset
from torch.utils.data import DataLoader

from frdet import datasets
from frdet.datasets import AspectRatioBatchSampler, CocoDataset, resolve_workers
from frdet.errors import ConfigError


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)


def config(num_workers):
    loader = dict(batch_size=1, num_workers=num_workers, persistent_workers=True, prefetch_factor=4)
    return ConfigDict(train_dataloader=loader, val_dataloader=None, test_cfg=dict(persistent_workers=True))


def test_without_workers_torch_accepts_what_is_left():
    data = [0, 1, 2]
    loader = config(0).train_dataloader
    with pytest.raises(ValueError, match='multiprocessing|num_workers'):
        DataLoader(data, sampler=DefaultSampler(data), **loader)
    settled = resolve_workers(config(0))
    assert settled.train_dataloader == dict(batch_size=1, num_workers=0)
    assert sorted(b.item() for b in DataLoader(data, sampler=DefaultSampler(data), **settled.train_dataloader)) == data


def test_with_workers_nothing_changes():
    assert resolve_workers(config(2)) == config(2)


def test_other_sections_are_left_alone():
    assert resolve_workers(config(0)).test_cfg == dict(persistent_workers=True)


def test_batches_for_a_gpu_are_pinned(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    loader = dict(batch_size=1, num_workers=2)
    cfg = ConfigDict(train_dataloader=loader, val_dataloader=dict(loader, pin_memory=False), test_dataloader=None)
    resolve_workers(cfg)
    assert cfg.train_dataloader == dict(loader, pin_memory=True)
    assert cfg.val_dataloader == dict(loader, pin_memory=False)


def test_the_former_name():
    with pytest.warns(FutureWarning, match=r'settle_workers is frdet\.datasets\.loaders\.resolve_workers now'):
        assert datasets.settle_workers is resolve_workers


WIDE, HIGH, SQUARE = (50, 100), (100, 50), (80, 80)


class Sizes:
    """A data set that knows its images' (height, width)."""

    def __init__(self, sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def get_data_info(self, index):
        return dict(zip(('height', 'width'), self.sizes[index], strict=True))


class InOrder:
    def __init__(self, dataset, order):
        self.dataset, self.order = dataset, order

    def __iter__(self):
        return iter(self.order)

    def __len__(self):
        return len(self.order)


def batches_of(sizes, order, batch_size, **kwargs):
    return list(AspectRatioBatchSampler(sampler=InOrder(Sizes(sizes), order), batch_size=batch_size, **kwargs))


def test_a_batch_leaves_as_soon_as_it_is_full():
    """Wide: 0, 2, 5; others (a square too): 1, 3, 4, 6. Left at the end: 5, then 6."""
    sizes = [WIDE, HIGH, WIDE, SQUARE, HIGH, WIDE, HIGH]
    assert batches_of(sizes, range(7), 2) == [[0, 2], [1, 3], [4, 6], [5]]
    assert batches_of(sizes, range(7), 3) == [[1, 3, 4], [0, 2, 5], [6]]
    assert batches_of(sizes, range(7), 4) == [[1, 3, 4, 6], [0, 2, 5]]
    assert batches_of(sizes, [6, 0, 5, 4], 2) == [[0, 5], [6, 4]]


def test_what_is_left_is_joined():
    sizes = [WIDE, HIGH, WIDE, HIGH, HIGH]
    assert batches_of(sizes, range(5), 4) == [[1, 3, 4, 0], [2]]
    assert batches_of(sizes, range(5), 4, drop_last=True) == [[1, 3, 4, 0]]


@settings(max_examples=50, deadline=None)
@given(wide=st.lists(st.booleans(), max_size=40), batch_size=st.integers(1, 7), drop_last=st.booleans())
def test_length_is_exact_and_every_image_comes_once(wide, batch_size, drop_last):
    sampler = InOrder(Sizes([WIDE if w else HIGH for w in wide]), range(len(wide)))
    batches = AspectRatioBatchSampler(sampler=sampler, batch_size=batch_size, drop_last=drop_last)
    given_out = list(batches)
    assert len(given_out) == len(batches)
    counts = Counter(index for batch in given_out for index in batch)
    assert set(counts.values()) <= {1}
    assert len(counts) == (len(wide) // batch_size * batch_size if drop_last else len(wide))
    # At most two batches mix shapes: those made of what was left.
    assert sum(len({wide[i] for i in batch}) > 1 for batch in given_out) <= 2


def test_epochs_of_mmengines_sampler():
    dataset = Sizes([WIDE, HIGH] * 5)
    batches = AspectRatioBatchSampler(sampler=DefaultSampler(dataset, seed=3), batch_size=2)
    first = list(batches)
    batches.sampler.set_epoch(1)
    assert list(batches) != first
    batches.sampler.set_epoch(0)
    assert list(batches) == first


def test_endless_sampler():
    """Batches of one kind only, permutation after permutation: after n draws every image came n / 6 times."""
    sizes = [WIDE, HIGH, WIDE, SQUARE, WIDE, WIDE]
    batches = iter(AspectRatioBatchSampler(sampler=InfiniteSampler(Sizes(sizes), seed=0), batch_size=2))
    drawn = [next(batches) for _ in range(60)]
    assert all(len({sizes[i] == WIDE for i in batch}) == 1 for batch in drawn)
    counts = Counter(i for batch in drawn for i in batch)
    assert set(counts) == set(range(6))
    assert max(counts.values()) - min(counts.values()) <= 2


def test_reads_the_records_of_a_data_set_and_its_wrappers(write_coco, content):
    """By id: 3 is high, 5 high, 7 wide, 9 square."""
    dataset = CocoDataset(data_root=write_coco(content), ann_file='ann.json', data_prefix=dict(img='images'))
    for wrapped in (dataset, RepeatDataset(dataset, 1)):
        sampler = DefaultSampler(wrapped, shuffle=False)
        assert list(AspectRatioBatchSampler(sampler=sampler, batch_size=3)) == [[0, 1, 3], [2]]


@pytest.mark.parametrize('batch_size', [0, -1, 2.5, True])
def test_wrong_batch_size(batch_size):
    with pytest.raises(ConfigError, match='positive integer'):
        batches_of([WIDE], [0], batch_size)


def test_a_data_set_without_sizes():
    class NoSizes(Sizes):
        def get_data_info(self, index):
            return {}

    sampler = AspectRatioBatchSampler(sampler=InOrder(NoSizes([WIDE]), [0]), batch_size=1)
    with pytest.raises(ConfigError, match='NoSizes gives no width and height'):
        list(sampler)
