"""A run keeps a whole checkpoint at every moment, also where saving fails, and refuses one that does not fit."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop

from frdet.apis import train_detector
from frdet.engine.hooks import CheckpointHook, FitCheckpointHook
from frdet.errors import CheckpointError, UserError
from frdet.files import UNFINISHED
from frdet.registry import HOOKS
from tests.engine import toy

ONE = {'train_cfg.max_epochs': 3, 'default_hooks.checkpoint.max_keep_ckpts': 1}


def names(folder):
    """The checkpoints, what points to them, and leftovers, hidden ones too; not the config and the report's figures."""
    return {path.name for path in folder.iterdir() if path.is_file() and path.suffix not in {'.py', '.csv', '.png'}}


def fail_from_save(monkeypatch, number):
    """From the given save on, the disk is full."""
    saves = []

    def fsync(descriptor, real=os.fsync):
        saves.append(descriptor)
        if len(saves) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, 'fsync', fsync)


def test_frdet_saves_with_its_own_hook(tmp_path):
    run = toy.runner(tmp_path)
    (hook,) = [hook for hook in run.hooks if hook.__class__.__name__ == 'CheckpointHook']
    assert isinstance(hook, CheckpointHook)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    """``max_keep_ckpts`` is 1, and the one that was to be replaced is still there; then the run goes on from it."""
    with monkeypatch.context() as patch:
        # A file and its folder each: epoch_1, the pointer, the best, epoch_1 again, the pointer; then epoch_2 fails.
        fail_from_save(patch, 2 * 5 + 1)
        with pytest.raises(CheckpointError, match=r'epoch_2\.pth could not be saved .*No space left'):
            toy.runner(tmp_path, **ONE).train()
    assert names(tmp_path) == {'epoch_1.pth', 'best_coco_bbox_mAP_epoch_1.pth', 'last_checkpoint'}
    model = train_detector(toy.config(tmp_path, **ONE), resume=True)
    assert model.calls == 8  # the second and third epoch
    assert names(tmp_path) == {'epoch_3.pth', 'best_coco_bbox_mAP_epoch_1.pth', 'last_checkpoint', 'finished.json'}
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')


def test_the_best_is_replaced_after_the_better_one_is_saved(tmp_path, monkeypatch):
    figures = iter([0.1, 0.2, 0.2, 0.3])  # the second validation is repeated
    monkeypatch.setattr(toy.ToyMetric, 'compute_metrics', lambda self, results: dict(bbox_mAP=next(figures)))
    with monkeypatch.context() as patch:
        fail_from_save(patch, 2 * (5 + 2) + 1)  # as above; epoch_2, the pointer; then the second best fails
        with pytest.raises(CheckpointError, match=r'best_coco_bbox_mAP_epoch_2\.pth could not be saved'):
            toy.runner(tmp_path, **ONE).train()
    assert names(tmp_path) == {'epoch_2.pth', 'best_coco_bbox_mAP_epoch_1.pth', 'last_checkpoint'}
    train_detector(toy.config(tmp_path, **ONE), resume=True)
    assert names(tmp_path) == {'epoch_3.pth', 'best_coco_bbox_mAP_epoch_3.pth', 'last_checkpoint', 'finished.json'}


def test_a_broken_last_checkpoint_is_passed_over(tmp_path, capfd):
    train_detector(toy.config(tmp_path, **{'train_cfg.max_epochs': 2}))
    content = (tmp_path / 'epoch_2.pth').read_bytes()
    (tmp_path / 'epoch_2.pth').write_bytes(content[:-100])
    model = train_detector(toy.config(tmp_path, **{'train_cfg.max_epochs': 2}), resume=True)
    assert model.calls == 4  # from epoch_1.pth
    assert 'epoch_2.pth is broken' in ''.join(capfd.readouterr())
    assert torch.load(tmp_path / 'epoch_2.pth', weights_only=True)['meta']['epoch'] == 2


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / f'.epoch_1.pth.123{UNFINISHED}').write_bytes(b'half')
    toy.runner(tmp_path, **{'train_cfg.max_epochs': 1}).train()
    assert names(tmp_path) == {'epoch_1.pth', 'best_coco_bbox_mAP_epoch_1.pth', 'last_checkpoint'}


def test_another_folder(tmp_path):
    """MMEngine's ``out_dir``: the folder is made, and resuming finds its way there."""
    change = {'default_hooks.checkpoint.out_dir': str(tmp_path / 'out'), 'train_cfg.max_epochs': 1}
    toy.runner(tmp_path / 'work', **change).train()
    assert names(tmp_path / 'out' / 'work') == {'epoch_1.pth', 'best_coco_bbox_mAP_epoch_1.pth'}
    change['train_cfg.max_epochs'] = 2
    assert train_detector(toy.config(tmp_path / 'work', **change), resume=True).calls == 4


@HOOKS.register_module(force=True)
class DisasterHook(Hook):
    """After the second iteration the disk is full, or gone."""

    def __init__(self, *, gone):
        self.gone = gone

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 1 and self.gone:
            Path(runner.work_dir).rename(f'{runner.work_dir}-elsewhere')
        elif runner.iter == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(('gone', 'reason'), [(True, 'No such file or directory'), (False, 'No space left on device')])
def test_a_disk_that_fails_stops_the_run(tmp_path, gone, reason):
    """Where it is a log that cannot be written first."""
    work = tmp_path / 'work'
    cfg = toy.config(work, custom_hooks=[dict(type='DisasterHook', gone=gone)])
    with pytest.raises(UserError, match=f'could not be (written|saved).*{reason}') as info:
        train_detector(cfg)
    assert len(str(info.value).splitlines()) <= 2
    assert work.exists() != gone


def run_with(tmp_path, content, **kwargs):
    path = str(tmp_path / 'a.pth')
    torch.save(content, path)
    run = toy.runner(tmp_path / 'work', load_from=path, resume=kwargs.get('resume', False))
    run.register_hook(FitCheckpointHook(source=path, **kwargs))
    return run


def test_a_fitting_checkpoint_passes(tmp_path):
    assert run_with(tmp_path, {'state_dict': toy.ToyDetector().state_dict()}).test() == {'coco/bbox_mAP': 0.12}


def test_missing_and_misshapen(tmp_path):
    state = toy.ToyDetector().state_dict()
    del state['layer.0.bias']
    state['layer.2.bias'] = torch.ones(7)
    with pytest.raises(CheckpointError, match=r'lacks layer\.0\.bias; it has another shape of layer\.2\.bias'):
        run_with(tmp_path, {'state_dict': state}).test()


def test_weights_alone_cannot_be_resumed(tmp_path):
    run = run_with(tmp_path, {'state_dict': toy.ToyDetector().state_dict(), 'meta': {}}, resume=True)
    with pytest.raises(CheckpointError, match='has no message_hub, optimizer to resume from'):
        run.train()


ITERATIONS = {
    'schedule': 'schedule_90k',
    'train_cfg.max_iters': 12,
    'train_cfg.val_interval': 4,
    'default_hooks.checkpoint.interval': 4,
    'default_hooks.checkpoint.by_epoch': False,
    'log_processor': dict(by_epoch=False),
}


@pytest.mark.parametrize(
    ('changes', 'interrupted', 'expected'),
    [
        ({'train_cfg.max_epochs': 3}, 2, [[1, 2, 3], [2, 3]]),
        ({'train_cfg.max_epochs': 3}, 3, [[1, 2, 3], [3]]),  # nothing is left to train
        ({'train_cfg.max_epochs': 5, 'train_cfg.val_interval': 2}, 2, [[2, 4, 5], [4, 5]]),
        (ITERATIONS, 2, [[4, 8, 12], [8, 12]]),
    ],
)
def test_an_interrupted_validation_is_repeated(tmp_path, monkeypatch, changes, interrupted, expected):
    """What is validated without an interruption, and from the interruption on: the last metric values are the same."""
    steps = []
    evaluate = toy.ToyMetric.compute_metrics

    def compute_metrics(self, results):
        steps.append(None)
        if len(steps) == fails:
            raise RuntimeError('killed')
        return evaluate(self, results)

    def logged():
        lines = [line for path in sorted(tmp_path.glob('*/*/vis_data/scalars.json')) for line in path.open()]
        return [one['step'] for one in map(json.loads, lines) if 'coco/bbox_mAP' in one]

    monkeypatch.setattr(toy.ToyMetric, 'compute_metrics', compute_metrics)
    fails = 0
    toy.runner(tmp_path / 'whole', **changes).train()
    assert logged() == expected[0]
    steps.clear()
    fails = interrupted
    with pytest.raises(RuntimeError, match='killed'):
        toy.runner(tmp_path / 'cut', **changes).train()
    before = len(logged())
    train_detector(toy.config(tmp_path / 'cut', **changes), resume=True)
    assert logged()[before:] == expected[1]


class OwnLoop(BaseLoop):
    """A user's loop: it has no interval of validations, and counts iterations."""

    def __init__(self, runner, dataloader):
        super().__init__(runner, dataloader)
        self.iter = self._iter = self.epoch = self._epoch = 0
        self.max_epochs, self.max_iters = 1, 4

    def run(self):
        self.runner.call_hook('before_train')


def test_a_loop_of_a_user_decides_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(toy.ToyMetric, 'compute_metrics', lambda self, results: pytest.fail('validated'))
    run = toy.runner(tmp_path)
    run._train_loop = OwnLoop(run, run.train_dataloader)
    run._train_loop.iter = 4
    run._val_loop = run.build_val_loop(run._val_loop)
    next(hook for hook in run.hooks if isinstance(hook, CheckpointHook)).before_train(run)


def test_a_validation_that_is_in_the_checkpoint_is_not_repeated(tmp_path, monkeypatch):
    """MMEngine saves the checkpoint again where the validation was the best one; so does a stop within an epoch."""
    figures = iter([0.1, 0.2, 0.3])
    monkeypatch.setattr(toy.ToyMetric, 'compute_metrics', lambda self, results: dict(bbox_mAP=next(figures)))
    toy.runner(tmp_path, **{'train_cfg.max_epochs': 2}).train()
    train_detector(toy.config(tmp_path, **{'train_cfg.max_epochs': 3}), resume=True)
    assert next(figures, None) is None
