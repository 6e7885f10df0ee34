"""What would ruin a run is refused before its first step."""

import pytest
import torch
from torch import nn

from frdet.engine.hooks.check_setup import check_classes
from frdet.errors import ConfigError
from frdet.models.layers import FrozenBatchNorm2d
from tests.engine import toy


@pytest.mark.parametrize('split', ['train', 'val'])
def test_class_counts(tmp_path, split):
    classes = dict(metainfo=dict(classes=('a', 'b', 'c')))
    run = toy.runner(tmp_path, **{f'{split}_dataloader.dataset': dict(type='ToyDataset', **classes)})
    with pytest.raises(ConfigError) as info:
        run.train()
    message = str(info.value)
    assert f'{split}_dataloader has 3 classes (a, b, c), the box head has 2' in message
    assert 'model.roi_head.bbox_head.num_classes=3' in message
    assert run.model.calls == 0


def test_class_count_of_the_test_data(tmp_path):
    run = toy.runner(tmp_path, **{'model.num_classes': 80})
    with pytest.raises(ConfigError, match='test_dataloader has 2 classes.*box head has 80'):
        run.test()


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
