"""A run that was stopped after any iteration goes on as if it had not been, and reads no image again."""

import random
import subprocess
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from torch import nn

from frdet.datasets.loaders import Place, read_batch
from frdet.errors import DataError
from frdet.registry import DATASETS, DETECTORS
from tests import warm
from tests.engine import toy

LAST = 10  # iterations: two epochs of 14 images, 3 a batch, of which the last is not full
ALONE = dict(num_workers=0)

# Models are not wrapped, so that each process has its own weights, of which the checkpoint holds the first one's.
SCRIPT = """
import sys
from pathlib import Path
import torch
from tests.engine.test_loops import ALONE, check_goes_on, train

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
length = {'train_dataloader.dataset.length': 16}
whole = train(folder / 'straight', 'EpochBased', ALONE, **length)
torch.distributed.barrier()
resumed = train(folder / 'resumed', 'EpochBased', ALONE, folder / 'straight/iter_2.pth', **length)
assert (len(whole.seen), len(resumed.seen)) == (6, 4)
assert resumed.seen == whole.seen[2:] and resumed.inputs == whole.inputs[2:]
if rank == 0:
    check_goes_on(resumed, whole, 2)
torch.distributed.destroy_process_group()
"""


@DATASETS.register_module(force=True)
class NoisyDataset(toy.ToyDataset):
    """Draws from every generator for an image, and writes down which images were read."""

    def __init__(self, *, log, **kwargs):
        self.log = log
        super().__init__(**kwargs)

    def get_data_info(self, idx):
        return {**super().get_data_info(idx), 'width': idx % 3, 'height': 1}

    def prepare_data(self, idx):
        with open(self.log, 'a') as f:
            f.write(f'{idx}\n')
        data = super().prepare_data(idx)
        data['inputs'] += random.random() + np.random.rand() + torch.rand(1)
        return data


@DETECTORS.register_module(force=True)
class NoisyDetector(toy.ToyDetector):
    """Draws from every generator in a step, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer.append(nn.Dropout(0.5))
        self.losses = []
        self.seen = []
        self.inputs = []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = super().forward(inputs, data_samples, mode)
        if mode == 'loss':
            out['loss_cls'] = out['loss_cls'] * random.random() + np.random.rand()
            self.inputs.append(torch.stack(inputs).flatten().tolist())
            self.losses.append(out['loss_cls'].item())
            self.seen.append([sample.img_id - 100 for sample in data_samples])
        return out


def runner(work_dir, loop, workers, resume=None, **changes):
    """A run of ``LAST`` iterations with a validation in between; one that is not resumed saves after each."""
    by_epoch = loop == 'EpochBased'
    cfg = toy.config(work_dir, 'schedule_1x' if by_epoch else 'schedule_90k')
    work_dir.mkdir(exist_ok=True)
    cfg.model.type = 'NoisyDetector'
    cfg.param_scheduler[0].end = 6
    cfg.train_dataloader.update(
        **workers,
        batch_sampler=dict(type='AspectRatioBatchSampler'),
        dataset=dict(type='NoisyDataset', length=14, log=str(work_dir / 'reads')),
    )
    if loop == 'Infinite':
        cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    saving = dict(save_last=False) if resume else dict(interval=1, save_best='coco/bbox_mAP')
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, **saving)
    cfg.train_cfg.update(dict(max_epochs=2) if by_epoch else dict(max_iters=LAST, val_interval=4))
    cfg.load_from, cfg.resume = str(resume) if resume else None, resume is not None
    cfg.merge_from_dict(changes)
    return Runner.from_cfg(cfg)


def train(work_dir, *args, **kwargs):
    """What came of a run with ``runner``'s arguments."""
    run = runner(work_dir, *args, **kwargs)
    run.train()
    optimizer = run.optim_wrapper.state_dict()
    return SimpleNamespace(
        work_dir=work_dir,
        losses=run.model.losses,
        seen=run.model.seen,
        inputs=run.model.inputs,
        rates=[group['lr'] for group in optimizer['param_groups']],
        states=[*run.model.state_dict().values(), *(s['momentum_buffer'] for s in optimizer['state'].values())],
        reads=[int(line) for line in (work_dir / 'reads').read_text().split()],
    )


def check_goes_on(resumed, straight, stop):
    """That ``resumed`` is the rest of ``straight`` after ``stop`` iterations."""
    assert resumed.losses == straight.losses[stop:]
    assert resumed.seen == straight.seen[stop:]
    assert resumed.inputs == straight.inputs[stop:]
    assert resumed.rates == straight.rates
    assert all(map(torch.equal, resumed.states, straight.states))


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    """Runs that are not stopped, without workers."""
    return {
        loop: train(tmp_path_factory.mktemp('straight'), loop, ALONE)
        for loop in ('EpochBased', 'IterBased', 'Infinite')
    }


@pytest.mark.parametrize('stop', range(1, LAST))
@pytest.mark.parametrize('loop', ['EpochBased', 'IterBased'])
def test_resumes_after_any_iteration(straight, tmp_path, loop, stop):
    whole = straight[loop]
    assert len(whole.losses) == LAST == len(set(whole.losses))
    resumed = train(tmp_path, loop, ALONE, whole.work_dir / f'iter_{stop}.pth')
    check_goes_on(resumed, whole, stop)
    assert resumed.reads == sum(whole.seen[stop:], [])  # no image of the batches before


@pytest.mark.parametrize(
    ('loop', 'stop', 'workers'),
    [
        ('EpochBased', 3, dict(num_workers=2)),
        ('EpochBased', 3, dict(num_workers=2, persistent_workers=True)),
        ('IterBased', 6, dict(num_workers=2, persistent_workers=True)),
        ('Infinite', 7, dict(num_workers=0)),
    ],
)
def test_workers_and_samplers_change_nothing(straight, tmp_path, loop, stop, workers):
    """The rest of a run without workers is the same with them."""
    whole = straight[loop]
    resumed = train(tmp_path, loop, workers, whole.work_dir / f'iter_{stop}.pth')
    check_goes_on(resumed, whole, stop)
    ahead = Counter(resumed.reads) - Counter(sum(whole.seen[stop:], []))
    assert ahead.total() <= (0 if loop == 'EpochBased' else 3 * 2 * workers['num_workers'])  # 2 batches each


def test_processes_go_on_each_where_it_was(tmp_path):
    run = [subprocess.Popen([warm.python(), '-c', SCRIPT, str(rank), tmp_path], cwd=toy.ROOT) for rank in range(2)]
    assert [process.wait(timeout=120) for process in run] == [0, 0]


@pytest.mark.parametrize('loop', ['EpochBased', 'Infinite'])
def test_a_seed_that_was_drawn_is_resumed(tmp_path, loop):
    """Where the config names no seed, the order of the images still goes on."""
    drawn = {'randomness.seed': None}
    whole = train(tmp_path / 'straight', loop, ALONE, **drawn)
    resumed = train(tmp_path / 'resumed', loop, ALONE, whole.work_dir / 'iter_3.pth', **drawn)
    check_goes_on(resumed, whole, 3)
    other = train(tmp_path / 'other', loop, ALONE, **drawn)
    assert other.seen != whole.seen


def test_the_seed_of_a_sampler_is_kept(straight, tmp_path):
    """A seed of its own orders the images, and that of the run draws for each of them."""
    change = {'train_dataloader.sampler.seed': 5, 'train_dataloader.batch_sampler': None}
    indices = torch.randperm(14, generator=torch.Generator().manual_seed(5)).tolist()
    assert sum(train(tmp_path, 'EpochBased', ALONE, **change).seen[:5], []) == indices


def test_an_image_is_not_drawn_alike_in_each_epoch(straight):
    epochs = straight['EpochBased'].losses[:5], straight['EpochBased'].losses[5:]
    assert not set(epochs[0]) & set(epochs[1])
    dataset = NoisyDataset(log='/dev/null', length=1)
    values = [
        read_batch(dataset, [Place(0, position)])[0]['inputs'].item()
        for position in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)]
    ]  # seed of the run, process, iteration, place
    assert len(set(values)) == 5
    assert values[0] == values[5]


def test_another_batch_size_begins_the_epoch_anew(straight, tmp_path):
    """7 batches of 2 make an epoch: the checkpoint after 3 of 5 batches says nothing of them; nor after a whole one."""
    folder = straight['EpochBased'].work_dir
    smaller = {'train_dataloader.batch_size': 2}
    assert len(train(tmp_path / 'a', 'EpochBased', ALONE, folder / 'iter_3.pth', **smaller).losses) == 7 + 7
    (log,) = (tmp_path / 'a').glob('*/*.log')
    assert '3 batches into an epoch of 5, and now an epoch has 7' in log.read_text()


def test_data_without_a_whole_batch(tmp_path):
    change = {'train_dataloader.batch_size': 15, 'train_dataloader.batch_sampler.drop_last': True}
    with pytest.raises(DataError, match='no whole batch'):
        runner(tmp_path, 'IterBased', ALONE, **change).train()
