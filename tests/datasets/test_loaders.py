import pytest
from mmengine.config import ConfigDict
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from frdet import datasets
from frdet.datasets import resolve_workers


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
