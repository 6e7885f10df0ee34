"""What would ruin a run is refused before its first step."""

import pytest
import torch
from mmengine.runner import Runner
from torch import nn

from frdet.engine.hooks import CheckSetupHook
from frdet.engine.hooks.check_setup import check_classes, compare_classes
from frdet.errors import ConfigError
from frdet.models.detectors import FasterRCNN
from frdet.models.layers import FrozenBatchNorm2d
from tests.engine import toy


@pytest.mark.parametrize('splits', [['train'], ['train', 'val']])
def test_class_counts(tmp_path, splits):
    three = dict(type='ToyDataset', metainfo=dict(classes=('a', 'b', 'c')))
    run = toy.runner(tmp_path, **{f'{split}_dataloader.dataset': three for split in splits})
    with pytest.raises(ConfigError) as info:
        run.train()
    message = str(info.value)
    assert 'train_dataloader has 3 classes (a, b, c), the model has 2' in message
    assert 'model.num_classes=3' in message
    assert run.model.calls == 0


def test_a_split_of_other_classes_is_told_to_take_those_of_training(tmp_path):
    """Not to change the head, which would then refuse the training data."""
    three = dict(type='ToyDataset', metainfo=dict(classes=('a', 'b', 'c')))
    run = toy.runner(tmp_path, **{'val_dataloader.dataset': three})
    with pytest.raises(ConfigError) as info:
        run.train()
    assert 'Train_dataloader has 2 classes, val_dataloader has 3' in str(info.value)
    assert 'val_dataloader.dataset.metainfo.classes=[cat,dog]' in str(info.value)
    assert 'num_classes' not in str(info.value) and run.model.calls == 0


def test_epochs_are_counted_in_a_loop_by_iterations(tmp_path):
    run = toy.runner(tmp_path, train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=8, val_interval=4))
    with pytest.raises(ConfigError) as info:
        run.train()
    keys = ('param_scheduler.1', 'default_hooks.checkpoint', 'log_processor')
    assert ', '.join(f'{key}.by_epoch=True' for key in keys) in str(info.value)
    assert run.model.calls == 0


def test_a_schedule_that_the_run_does_not_reach_is_told_first(tmp_path):
    """12 images, 3 a step: an epoch has 4 iterations."""
    cfg = toy.config(tmp_path, **{'train_cfg.max_epochs': 1})
    Runner.from_cfg(cfg).train()
    (log,) = tmp_path.glob('*/*.log')
    lines = log.read_text().splitlines()
    (told,) = [k for k, line in enumerate(lines) if 'Schedules do not fit the length of the run' in line]
    assert told < next(k for k, line in enumerate(lines) if 'Epoch(train)' in line)
    assert 'WARNING' in lines[told]
    assert '0 (LinearLR) needs until iteration 1001: the run ends after iteration 4' in lines[told]
    assert '1 (MultiStepLR) never reaches epoch 8, 11: the run ends after epoch 1' in lines[told]


def test_class_count_of_the_test_data(tmp_path):
    run = toy.runner(tmp_path, **{'model.num_classes': 80})
    with pytest.raises(ConfigError, match='test_dataloader has 2 classes.*the model has 80'):
        run.test()


def test_each_head_of_other_classes_is_named_by_its_key_path():
    """Of a list, as in a cascade; the backbone's number is its own."""
    model = FasterRCNN.__new__(FasterRCNN)
    nn.Module.__init__(model)
    for name, count in (('data_preprocessor', 2), ('backbone', 1000)):
        part = nn.Module()
        part.num_classes = count
        model._modules[name] = part
    heads = nn.ModuleList(nn.Module() for _ in range(3))
    for head, count in zip(heads, (2, 3, 4), strict=True):
        head.num_classes = count
    model._modules['bbox_heads'] = heads
    with pytest.raises(ConfigError) as info:
        check_classes(model, toy.ToyDataset(), 'train_dataloader')
    assert 'the model has 3 and 4: set model.bbox_heads.1.num_classes=2 and model.bbox_heads.2.num_classes=2' in str(
        info.value
    )


def test_what_has_no_classes_is_not_checked():
    check_classes(nn.Linear(1, 1), type('Data', (), {'metainfo': dict(classes=('a',))}), 'train_dataloader')
    check_classes(toy.ToyDetector(), object(), 'train_dataloader')


def test_frozen_norm_without_weights(tmp_path):
    run = toy.runner(tmp_path / 'a')
    run.model.norm = FrozenBatchNorm2d(3)
    with pytest.raises(ConfigError, match='FrozenBN has no statistics.*diverges to NaN') as info:
        run.train()
    assert 'configs/faster_rcnn/r50_fpn_1x_cocoval_scratch.py' in str(info.value)
    assert run.model.calls == 0


def test_frozen_norm_with_weights_of_load_from(tmp_path):
    """The check comes after weights are loaded, from wherever."""
    run = toy.runner(tmp_path / 'a', **{'train_cfg.max_epochs': 1}, load_from=str(tmp_path / 'w.pth'))
    run.model.norm = FrozenBatchNorm2d(3)
    state = run.model.state_dict()
    torch.save({'state_dict': {**state, 'norm.running_var': torch.full((3,), 2.0)}}, tmp_path / 'w.pth')
    run.train()
    assert run.iter == 4


def saved(tmp_path, classes):
    """A checkpoint after one epoch on ``classes``."""
    named = dict(type='ToyDataset', metainfo=dict(classes=classes))
    changes = {'train_dataloader.dataset': named, 'val_dataloader.dataset': named, 'train_cfg.max_epochs': 1}
    toy.runner(tmp_path, **changes).train()
    return str(tmp_path / 'epoch_1.pth')


def test_a_checkpoint_of_other_classes_is_not_tested(tmp_path):
    """Same number, another order: every detection would be called by the wrong name."""
    path = saved(tmp_path / 'a', ('dog', 'cat'))
    run = toy.runner(tmp_path / 'b', load_from=path)
    with pytest.raises(ConfigError, match="The checkpoint calls label 0 'dog', test_dataloader calls it 'cat'"):
        run.test()
    assert toy.runner(tmp_path / 'd', load_from=saved(tmp_path / 'e', ('cat', 'dog'))).test()


def test_a_checkpoint_of_other_classes_is_not_resumed_but_fine_tuned(tmp_path):
    path = saved(tmp_path / 'a', ('cat', 'horse'))
    changes = {'train_cfg.max_epochs': 2, 'load_from': path}
    run = toy.runner(tmp_path / 'b', resume=True, **changes)
    with pytest.raises(ConfigError, match="The checkpoint calls label 1 'horse', train_dataloader calls it 'dog'"):
        run.train()
    assert run.model.calls == 0
    run = toy.runner(tmp_path / 'c', **changes)
    run.train()
    assert run.iter == 8


def test_validation_in_another_order(tmp_path):
    turned = dict(type='ToyDataset', metainfo=dict(classes=('dog', 'cat')))
    run = toy.runner(tmp_path, **{'val_dataloader.dataset': turned})
    with pytest.raises(ConfigError, match="Train_dataloader calls label 0 'cat', val_dataloader calls it 'dog'"):
        run.train()
    assert run.model.calls == 0


@pytest.mark.parametrize('meta', [None, 3, {}, {'dataset_meta': None}, {'dataset_meta': {'CLASSES': ('a',)}}])
def test_a_checkpoint_that_names_no_classes(tmp_path, meta):
    compared = CheckSetupHook()
    compared.after_load_checkpoint(None, {'meta': meta})
    compare_classes(compared._learnt, 'the checkpoint', toy.ToyDataset(), 'test_dataloader')


def test_another_number_of_classes():
    with pytest.raises(ConfigError, match='The checkpoint has 3 classes, test_dataloader has 2'):
        compare_classes(['a', 'b', 'c'], 'the checkpoint', toy.ToyDataset(), 'test_dataloader')
