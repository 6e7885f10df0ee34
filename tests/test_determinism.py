"""``--deterministic``: two runs of a whole training are equal to the last bit.

Of one machine, one number of threads (sums are taken in another order) and one number of workers (each draws the flips
of the images that it reads).
"""

import json

import pytest
import torch

from frdet.apis import train_detector
from frdet.config import load_config
from frdet.datasets import write_shapes
from tests.engine.toy import ROOT
from tests.weights import NARROW


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=6, num_val=2)


def train(shapes, work_dir, workers, *, seed=3, amp=False):
    """Three iterations of two images: the logged losses, and everything that the checkpoint holds of the model."""
    options = {
        **NARROW,
        'train_dataloader.dataset.data_root': str(shapes),
        'train_dataloader.dataset.pipeline.1.short_side': 96,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': workers,
        'train_cfg.max_epochs': 1,
        'param_scheduler': [],
        'default_hooks.logger.interval': 1,
        'default_hooks.report': None,
        'visualizer.vis_backends': [dict(type='LocalVisBackend')],
    }
    cfg = load_config(ROOT / 'configs/quickstart/r18_fpn_shapes.py', options)
    train_detector(cfg, work_dir=str(work_dir), seed=seed, deterministic=True, amp=amp, validate=False)
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in file.read_text().splitlines()]
    losses = [{k: v for k, v in r.items() if 'loss' in k or k == 'grad_norm'} for r in records]
    return losses, torch.load(work_dir / 'epoch_1.pth', weights_only=True)['state_dict']


def equal(one, other):
    return one[0] == other[0] and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(('workers', 'count', 'amp'), [(0, 2, False), (2, 1, True)])
def test_two_runs_are_equal(shapes, tmp_path, threads, workers, count, amp):
    threads(count)
    first = train(shapes, tmp_path / 'first', workers, amp=amp)
    assert len(first[0]) == 3 and len({loss['loss'] for loss in first[0]}) == 3
    assert equal(first, train(shapes, tmp_path / 'second', workers, amp=amp))
    if workers:
        assert not equal(first, train(shapes, tmp_path / 'seed', workers, seed=4, amp=amp))
