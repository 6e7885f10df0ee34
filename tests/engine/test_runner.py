"""The learning rate follows the images of a step, once."""

import contextlib
import json
import multiprocessing
import time

import pytest
import torch
from torch import nn

from frdet.apis import train_detector
from frdet.engine import DetRunner
from frdet.errors import CheckpointError, ConfigError
from frdet.registry import DETECTORS
from tests.engine import toy
from tests.engine.toy import ToyDetector


@DETECTORS.register_module(force=True)
class SyncedToy(ToyDetector):
    def __init__(self, **kwargs):
        super().__init__(norm=nn.SyncBatchNorm(2), **kwargs)


def runner(work_dir, **changes):
    cfg = toy.config(work_dir, **{'train_cfg.max_epochs': 1, **changes})
    return DetRunner.from_cfg(cfg)


def logged(work_dir):
    return '\n'.join(path.read_text() for path in sorted(work_dir.glob('*/*.log')))


def rates(work_dir):
    lines = [line for path in sorted(work_dir.glob('*/vis_data/scalars.json')) for line in path.open()]
    return {r['iter']: r['lr'] for r in map(json.loads, lines) if 'loss' in r}


def warmup(peak, iteration):
    """Of the first 1000 iterations of schedule_1x; ``iteration`` counts from 1."""
    done = (iteration - 1) / 1000
    return pytest.approx(peak * (0.001 * (1 - done) + done))


def test_accumulated_images_count(tmp_path):
    """3 images on one process, 4 times before a step: 12 for a rate that is meant for 16."""
    runner(tmp_path, **{'optim_wrapper.accumulative_counts': 4}).train()
    assert 'processes 1 x images 3 x accumulated 4 = 12, so 0.02 x 12 / 16 = 0.015' in logged(tmp_path)
    # The schedule counts iterations, so the rate rises within the accumulation too.
    assert rates(tmp_path) == {i: warmup(0.015, i) for i in (1, 2, 3, 4)}


def test_two_runs_of_a_second_write_into_their_own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(time, 'strftime', lambda *args: '20260101_000000')
    runs = [runner(tmp_path / name) for name in 'ab']
    for run, name in zip(runs, 'ab', strict=True):
        assert run.visualizer.get_backend('LocalVisBackend')._save_dir.startswith(str(tmp_path / name))
        assert list((tmp_path / name).glob('20260101_000000*/vis_data/config.py'))
    assert [run.timestamp for run in runs] == ['20260101_000000', '20260101_000000_2']


def test_switched_off(tmp_path):
    runner(tmp_path, **{'optim_wrapper.accumulative_counts': 4, 'auto_scale_lr.enable': False}).train()
    assert rates(tmp_path)[4] == warmup(0.02, 4)
    assert 'Learning rate:' not in logged(tmp_path)


def test_the_base_is_needed(tmp_path):
    with pytest.raises(ConfigError, match='base_batch_size'):
        runner(tmp_path, auto_scale_lr=dict(enable=True, base_batch_size=None)).train()


def test_resuming_scales_once(tmp_path):
    """A second epoch goes on as if it had not been interrupted, at 0.02 * 3 / 16."""
    runner(tmp_path).train()
    runner(tmp_path, resume=True, **{'train_cfg.max_epochs': 2}).train()
    assert rates(tmp_path) == {i: warmup(0.00375, i) for i in range(1, 9)}
    assert 'values hold' not in logged(tmp_path)


def test_resuming_with_another_batch_scales_the_rate_and_says_so(tmp_path):
    """6 images a step in place of 3: twice the rate, in the place of the warm-up that iteration 5 has."""
    runner(tmp_path).train()
    changes = {'train_cfg.max_epochs': 2, 'train_dataloader.batch_size': 6}
    runner(tmp_path, resume=True, **changes).train()
    assert rates(tmp_path)[5] == warmup(0.0075, 5)
    (line,) = [line for line in logged(tmp_path).splitlines() if "The config's values hold" in line]
    assert 'optim_wrapper.optimizer.lr, scaled to the images in a step, 0.0075 (checkpoint: 0.00375)' in line
    assert '--cfg-options optim_wrapper.optimizer.lr=0.01' in line  # 0.01 * 6 / 16 = 0.00375


def test_resuming_with_another_schedule_and_weight_decay(tmp_path):
    """An epoch of 4 iterations, at a warm-up of 4, then a rate that falls after 2 epochs in place of 1."""
    off = {'auto_scale_lr.enable': False, 'param_scheduler.0.end': 5}
    runner(tmp_path, **off, **{'param_scheduler.1.milestones': [1]}).train()
    again = {
        'param_scheduler.1.milestones': [2],
        'optim_wrapper.optimizer.weight_decay': 0.5,
        'train_cfg.max_epochs': 3,
    }
    resumed = runner(tmp_path, resume=True, **off, **again)
    resumed.train()
    warm = {i: 0.02 * (0.001 * (5 - i) + (i - 1)) / 4 for i in range(1, 5)}
    expected = {**warm, **dict.fromkeys(range(5, 9), 0.02), **dict.fromkeys(range(9, 13), 0.002)}
    assert rates(tmp_path) == {i: pytest.approx(rate) for i, rate in expected.items()}
    assert [group['weight_decay'] for group in resumed.optim_wrapper.optimizer.param_groups] == [0.5, 0]
    (line,) = [line for line in logged(tmp_path).splitlines() if "The config's values hold" in line]
    assert 'optim_wrapper.optimizer.weight_decay 0.5 (checkpoint: 0.0001)' in line
    assert 'param_scheduler.1.milestones [2] (checkpoint: [1])' in line
    saved = torch.load(tmp_path / 'epoch_3.pth', weights_only=True)['meta']['setup']  # for the next time
    assert saved['optimizer'] == 'SGD'
    assert saved['parameters'][1] == ['layer.1.weight', 'layer.1.bias']
    assert [group['lr'] for group in saved['groups']] == [0.02, 0.02]
    assert saved['schedules'][1]['milestones'] == [2]


@pytest.mark.parametrize('loop', ['epochs', 'converted', 'iterations'])
def test_shares_follow_the_run(tmp_path, loop):
    """An epoch has 4 iterations. Of 2 epochs 0.75 is the first, of 4 the third: the longer run rises again."""
    steps = dict(type='MultiStepLR', milestones=[0.75], gamma=0.1, end=1.0)
    steps |= dict(convert_to_iter_based=True) if loop == 'converted' else dict(by_epoch=loop == 'epochs')
    shared = {'param_scheduler': [steps], 'auto_scale_lr.enable': False, 'train_cfg.val_interval': 8}
    unit, length, before, now = 'epochs', 1, 1, 3
    if loop == 'iterations':
        unit, length, before, now = 'iters', 4, 6, 12
        by_iteration = {'by_epoch': False, 'interval': 8}
        shared |= {'schedule': 'schedule_90k', **{f'default_hooks.checkpoint.{k}': v for k, v in by_iteration.items()}}
    for epochs in (2, 4):
        end = {f'train_cfg.max_{unit}': epochs * length, 'resume': epochs == 4}
        DetRunner.from_cfg(toy.config(tmp_path, **shared, **end)).train()
    first = before if loop == 'iterations' else 4
    expected = {i: 0.02 if i <= first or 8 < i <= 12 else 0.002 for i in range(1, 17)}
    assert rates(tmp_path) == {i: pytest.approx(rate) for i, rate in expected.items()}
    assert f'param_scheduler.0.milestones [{now}] (checkpoint: [{before}])' in logged(tmp_path)


def test_one_cycle_resumes(tmp_path):
    """Its state held a function, which no checkpoint may."""
    cycle = dict(type='OneCycleLR', eta_max=0.1, total_steps=8, by_epoch=False)
    change = {'param_scheduler': [cycle]}
    runner(tmp_path / 'whole', **change, **{'train_cfg.max_epochs': 2}).train()
    cut = runner(tmp_path / 'cut', **change, **{'train_cfg.max_epochs': 2})
    cut.train_loop._max_epochs = 1
    cut.train()
    runner(tmp_path / 'cut', resume=True, **change, **{'train_cfg.max_epochs': 2}).train()
    assert rates(tmp_path / 'cut') == rates(tmp_path / 'whole')
    assert 'values hold' not in logged(tmp_path / 'cut')


def test_resume_called_before_train(tmp_path):
    """The rate is scaled to the images in a step once, 0.02 * 3 / 16."""
    runner(tmp_path).train()
    resumed = runner(tmp_path, **{'train_cfg.max_epochs': 2})
    resumed.resume(str(tmp_path / 'epoch_1.pth'))
    resumed.train()
    assert rates(tmp_path) == {i: warmup(0.00375, i) for i in range(1, 9)}
    assert 'values hold' not in logged(tmp_path)


def test_a_checkpoint_without_a_position(tmp_path):
    run = runner(tmp_path)
    content = {'state_dict': run.model.state_dict(), 'meta': {}, 'message_hub': {}, 'optimizer': {}}
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='meta has no epoch and iter: .*load_from='):
        run.resume(str(tmp_path / 'a.pth'))
    assert run._resumed is None


@pytest.mark.skipif(torch.cuda.is_available(), reason='where there is a GPU the norm is synchronised')
def test_synchronised_norms_test_without_gpus(tmp_path, monkeypatch):
    """Two processes on CPUs: torch's wrapper would refuse the norm, which in testing has nothing to synchronise."""
    alone = runner(tmp_path)
    wrapped = []
    monkeypatch.setattr('mmengine.runner.Runner.wrap_model', lambda self, cfg, model: wrapped.append(model))
    alone._distributed = True
    with pytest.raises(ConfigError, match='SyncBN on several processes needs GPUs'):
        alone.wrap_model(None, SyncedToy())
    alone._train_loop = None
    alone.wrap_model(None, SyncedToy())
    (model,) = wrapped
    assert not isinstance(model.norm, nn.SyncBatchNorm) and model.norm.num_features == 2


@pytest.mark.parametrize('fails', [False, True])
@pytest.mark.parametrize('schedule', ['schedule_1x', 'schedule_90k'])
def test_no_worker_is_left(tmp_path, monkeypatch, schedule, fails):
    """The garbage collector would end them later, and wait five seconds for each."""
    workers = {
        f'{part}_dataloader.{key}': value
        for part in ('train', 'val')
        for key, value in (('num_workers', 2), ('persistent_workers', True))
    }
    length = {'train_cfg.max_iters': 4} if schedule == 'schedule_90k' else {'train_cfg.max_epochs': 1}
    by_iteration = {'default_hooks.checkpoint.by_epoch': False, 'log_processor': dict(by_epoch=False)}
    cfg = toy.config(tmp_path, schedule, **workers, **length, **(by_iteration if 'max_iters' in str(length) else {}))
    if fails:
        monkeypatch.setattr(toy.ToyMetric, 'compute_metrics', lambda self, results: 1 / 0)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        train_detector(cfg)
    assert multiprocessing.active_children() == []
