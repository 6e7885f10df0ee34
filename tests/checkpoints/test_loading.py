"""Checkpoints: plain to read, resumed exactly, and never a program."""

from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from frdet.checkpoints.loading import from_plain, to_plain
from frdet.engine import load_checkpoint
from frdet.errors import CheckpointError
from tests.checkpoints.test_reading import Trap
from tests.checkpoints.tiny import assert_equal, tiny
from tests.engine import toy


def weights(run):
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def test_resume_equals_one_run(tmp_path):
    """Model, momentum, rate and histories go on where they were: the last weights are the same to the last bit."""
    whole = toy.runner(tmp_path / 'whole', **{'train_cfg.max_epochs': 2})
    whole.train()
    toy.runner(tmp_path / 'parts', **{'train_cfg.max_epochs': 1}).train()
    resumed = toy.runner(tmp_path / 'parts', **{'train_cfg.max_epochs': 2}, resume=True)
    resumed.train()
    assert (resumed.epoch, resumed.iter) == (2, 8)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())
    scalars = resumed.message_hub.get_scalar('train/loss').data[0]
    np.testing.assert_array_equal(scalars, whole.message_hub.get_scalar('train/loss').data[0])


def test_a_checkpoint_needs_no_allow_list(tmp_path):
    toy.runner(tmp_path, **{'train_cfg.max_epochs': 2}).train()
    for name in ('epoch_1.pth', 'epoch_2.pth', 'best_coco_bbox_mAP_epoch_1.pth'):
        content = torch.load(tmp_path / name, weights_only=True)
        assert {'state_dict', 'meta', 'message_hub'} <= set(content)
        assert name.startswith('best') or {'optimizer', 'param_schedulers'} <= set(content)
        assert content['meta']['dataset_meta']['classes'] == ('cat', 'dog')
    assert content['message_hub']['runtime_info']['best_score'] == 0.12


def test_keeps_the_last_three_and_the_best(tmp_path):
    toy.runner(tmp_path, **{'train_cfg.max_epochs': 4}).train()
    names = {p.name for p in tmp_path.glob('*.pth')}
    assert names == {'epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth', 'best_coco_bbox_mAP_epoch_1.pth'}


@pytest.mark.parametrize('resume', [True, False])
def test_a_checkpoint_with_code_is_refused(tmp_path, resume):
    sprung = tmp_path / 'sprung'
    run = toy.runner(tmp_path / 'a', **{'train_cfg.max_epochs': 1})
    torch.save({'state_dict': run.model.state_dict(), 'meta': Trap(sprung)}, tmp_path / 'trap.pth')
    run = toy.runner(tmp_path / 'b', load_from=str(tmp_path / 'trap.pth'), resume=resume)
    with pytest.raises(CheckpointError, match='refused'):
        run.train()
    assert not sprung.exists()


@pytest.mark.parametrize('address', ['none.pth', 'https://127.0.0.1:9/none.pth', 's3://none.pth', 'open-mmlab://none'])
def test_every_address_goes_through_our_loader(tmp_path, monkeypatch, address):
    monkeypatch.setenv('FRDET_CACHE', str(tmp_path))
    with pytest.raises(CheckpointError, match='none'):
        CheckpointLoader.load_checkpoint(address)


def test_load_checkpoint(tmp_path):
    state = {'w': torch.ones(2)}
    torch.save(state, tmp_path / 'bare.pth')
    assert load_checkpoint(str(tmp_path / 'bare.pth'))['meta'] == {}
    torch.save({'state_dict': state, 'meta': {'epoch': 3}}, tmp_path / 'full.pth')
    assert load_checkpoint(str(tmp_path / 'full.pth'))['meta'] == {'epoch': 3}
    torch.save({'epoch': 3}, tmp_path / 'none.pth')
    with pytest.raises(CheckpointError, match='expected a dict of parameters'):
        load_checkpoint(str(tmp_path / 'none.pth'))
    torch.save([1], tmp_path / 'list.pth')
    with pytest.raises(CheckpointError, match='holds a list'):
        load_checkpoint(str(tmp_path / 'list.pth'))


def test_plain_and_back():
    value = OrderedDict(
        history=HistoryBuffer([1.5, 2.5], [1, 2], max_length=10),
        numbers=[np.float32(0.5), np.int64(3), (np.bool_(True), 'text', None)],
        array=np.arange(3),
        milestones=Counter({8: 1}),
    )
    plain = to_plain(value)
    assert plain['numbers'] == [0.5, 3, (True, 'text', None)]
    assert type(plain['numbers'][0]) is float
    assert torch.equal(plain['array'], torch.arange(3))
    assert plain['milestones'] == Counter({8: 1})
    history = from_plain(plain)['history']
    assert isinstance(history, HistoryBuffer)
    assert [part.tolist() for part in history.data] == [[1.5, 2.5], [1, 2]]
    assert history.max_length == 10


@pytest.mark.parametrize('layout', ['detectron2', 'torchvision'])
def test_another_projects_names_are_converted(tmp_path, layout):
    """What else is in such a file, an optimiser's state of other parameters, is left behind."""
    torch.save({'model': tiny(layout), 'optimizer': {'state': {}}, 'iteration': 9}, tmp_path / 'a.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert_equal(loaded['state_dict'], tiny())
    assert loaded['layout'] == f'layout {layout}'
    assert set(loaded) == {'state_dict', 'meta', 'layout'}


def test_what_was_saved_while_training_is_untouched(tmp_path, monkeypatch):
    """Even under another project's names: a plugin's model may wrap torchvision's. The log tells the layout anyway, as
    MMDetection's published files are of this kind.
    """
    logged = []
    monkeypatch.setattr('frdet.checkpoints.loading.print_log', lambda text, **_: logged.append(text))
    content = {'state_dict': tiny('torchvision'), 'optimizer': {'lr': 1}, 'meta': {'epoch': 3}, 'message_hub': {}}
    torch.save(content, tmp_path / 'a.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert_equal(loaded.pop('state_dict'), content.pop('state_dict'))
    assert loaded == content
    assert logged == [f'{tmp_path / "a.pth"}: layout torchvision']


@pytest.mark.parametrize('name', ['head.w', 'roi_heads.mask_head.w'])
def test_names_that_are_not_all_known_stay(tmp_path, name):
    state = {'w': torch.ones(1)} if name == 'head.w' else tiny('torchvision')
    torch.save({**state, name: torch.ones(1)}, tmp_path / 'a.pth')
    assert_equal(load_checkpoint(str(tmp_path / 'a.pth'))['state_dict'], {**state, name: torch.ones(1)})


def test_class_names_of_mmdetection_2(tmp_path):
    torch.save({'state_dict': tiny(), 'meta': {'CLASSES': ('cat', 'dog'), 'epoch': 3}}, tmp_path / 'a.pth')
    loaded = load_checkpoint(str(tmp_path / 'a.pth'))
    assert loaded['meta']['dataset_meta'] == {'classes': ('cat', 'dog')}
    assert loaded['meta']['epoch'] == 3
    assert_equal(loaded['state_dict'], tiny())
