"""Checkpoint files are whole whenever a process dies, and a damaged one is known for what it is."""

import contextlib
import errno
import multiprocessing
import os
import random
import resource
import time
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, save_checkpoint

from frdet.checkpoints.runs import WHOLE, check_whole, from_plain, newest_whole, to_plain, write_whole
from frdet.engine import load_checkpoint
from frdet.errors import CheckpointError
from tests.checkpoints.test_families import one_stage
from tests.checkpoints.test_reading import Trap
from tests.checkpoints.tiny import assert_equal, tiny
from tests.engine import toy

KILLS = 30


def save(path, step, size=10):
    content = {'step': step, 'state_dict': {'w': torch.full((size,), step)}}
    save_checkpoint(content, str(path), backend_args=dict(backend=WHOLE))


def save_for_ever(folder, report):
    """As the hook does: a checkpoint, the pointer to it, and only then the removal of the one before the last."""
    for step in range(1, 10_000):
        save(folder / f'iter_{step}.pth', step, size=300_000)
        write_whole(folder / 'last_checkpoint', str(folder / f'iter_{step}.pth').encode())
        (folder / f'iter_{step - 2}.pth').unlink(missing_ok=True)
        report.send(step)


def test_nothing_is_lost_by_kills(tmp_path):
    # The process that is forked has no threads: a fork of this one may wait for ever for a lock that a thread holds.
    processes = multiprocessing.get_context('forkserver')
    processes.set_forkserver_preload([__name__])
    moments = random.Random(0)
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        folder.mkdir()
        receive, report = processes.Pipe(duplex=False)
        child = processes.Process(target=save_for_ever, args=(folder, report))
        child.start()
        report.close()
        finished = receive.recv()
        time.sleep(moments.uniform(0, 0.05))
        child.kill()
        child.join()
        with receive, contextlib.suppress(EOFError, OSError):  # raised at the end of the messages
            while True:
                finished = receive.recv()
        for path in folder.glob('*.pth'):
            check_whole(path)
        found = load_checkpoint(newest_whole(folder))
        assert found['step'] >= finished
        assert found['state_dict']['w'].eq(found['step']).all()


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path):
    """A damaged file is refused, or what it holds is what was saved: a few bytes of the format say nothing."""
    path = tmp_path / 'a.pth'
    save(path, 7, size=50)
    content = path.read_bytes()
    places = random.Random(0).sample(range(len(content)), 150)
    refused = 0
    for place in places:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            loaded = load_checkpoint(str(path))
        except CheckpointError:
            refused += 1
        else:
            assert loaded['step'] == 7
            assert torch.equal(loaded['state_dict']['w'], torch.full((50,), 7))
    assert refused > 20
    at = content.index(torch.full((50,), 7).numpy().tobytes())  # the numbers themselves
    path.write_bytes(content[:at] + b'\x08' + content[at + 1 :])
    with pytest.raises(CheckpointError, match='broken.*checksum'):
        load_checkpoint(str(path))
    for place in places:
        path.write_bytes(content[:place])
        with pytest.raises(CheckpointError, match='a.pth is broken'):
            check_whole(path)
        with pytest.raises(CheckpointError, match='a.pth'):
            load_checkpoint(str(path))


def test_the_newest_whole_one(tmp_path):
    assert newest_whole(tmp_path) is None
    for step in (1, 2, 3):
        save(tmp_path / f'iter_{step}.pth', step)
        os.utime(tmp_path / f'iter_{step}.pth', (step, step))
    save(tmp_path / 'best_mAP_iter_9.pth', 9)  # holds no optimiser
    assert newest_whole(tmp_path) == str(tmp_path / 'iter_3.pth')
    (tmp_path / 'last_checkpoint').write_text(f'/elsewhere/{tmp_path.name}/iter_2.pth')  # the folder has been moved
    assert newest_whole(tmp_path) == str(tmp_path / 'iter_2.pth')


def test_a_broken_one_is_named_and_passed_over(tmp_path, capfd):
    for step in (1, 2, 3):
        save(tmp_path / f'iter_{step}.pth', step)
        os.utime(tmp_path / f'iter_{step}.pth', (step, step))
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_3.pth'))
    content = (tmp_path / 'iter_3.pth').read_bytes()
    (tmp_path / 'iter_3.pth').write_bytes(content[: len(content) // 2])
    (tmp_path / 'iter_2.pth').unlink()
    assert newest_whole(tmp_path) == str(tmp_path / 'iter_1.pth')
    shown = ''.join(capfd.readouterr())
    assert 'iter_3.pth is broken' in shown
    assert f'Resuming from {tmp_path}/iter_1.pth instead' in shown
    (tmp_path / 'iter_1.pth').write_bytes(b'')
    with pytest.raises(CheckpointError, match=r'whole: iter_3.pth, iter_1.pth\. Train anew') as info:
        newest_whole(tmp_path)
    assert len(str(info.value).splitlines()) <= 2


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    path = tmp_path / 'a.pth'
    save(path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # as a full disk: a write fails half done
    try:
        with pytest.raises(CheckpointError, match=r'a\.pth could not be saved into .*: File too large') as info:
            save(path, 2, size=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(str(info.value).splitlines()) <= 2
    assert [p.name for p in tmp_path.iterdir()] == ['a.pth']
    assert load_checkpoint(str(path))['step'] == 1


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failing_sync_is_a_failing_save(tmp_path, monkeypatch, number):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(CheckpointError, match=os.strerror(number)):
        save(tmp_path / 'a.pth', 1)
    assert not list(tmp_path.iterdir())


def test_a_vanished_folder_is_not_made_again(tmp_path):
    with pytest.raises(CheckpointError, match='No such file or directory'):
        save(tmp_path / 'gone' / 'a.pth', 1)
    assert not list(tmp_path.iterdir())


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
    monkeypatch.setattr('frdet.checkpoints.runs.print_log', lambda text, **_: logged.append(text))
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


@pytest.mark.parametrize('more', [{}, {'message_hub': {}, 'optimizer': {}}])
def test_a_retinanet_of_mmdetection(tmp_path, more):
    """Also one that was saved while training: its anchors have another order, and its GroupNorms another name."""
    meta = {'cfg': "default_scope = 'mmdet'", 'dataset_meta': {'classes': ('cat', 'dog')}}
    own = {'bbox_head.added.gn.weight': torch.ones(1)}  # of a user: it stays as it is
    torch.save({'state_dict': {**one_stage('mmdet3'), **own}, 'meta': meta, **more}, tmp_path / 'a.pth')
    loaded = load_checkpoint(str(tmp_path / 'a.pth'))
    assert_equal(loaded['state_dict'], {**one_stage('frdet'), **own})
    assert loaded['layout'] == 'layout mmdet3' and loaded['meta'] == meta


@pytest.mark.parametrize('layout', ['detectron2', 'torchvision'])
def test_other_families_of_other_projects(tmp_path, layout):
    torch.save(one_stage(layout, fcos=True), tmp_path / 'a.pth')
    assert_equal(load_checkpoint(str(tmp_path / 'a.pth'))['state_dict'], one_stage('frdet', fcos=True))


def test_class_names_of_mmdetection_2(tmp_path):
    torch.save({'state_dict': tiny(), 'meta': {'CLASSES': ('cat', 'dog'), 'epoch': 3}}, tmp_path / 'a.pth')
    loaded = load_checkpoint(str(tmp_path / 'a.pth'))
    assert loaded['meta']['dataset_meta'] == {'classes': ('cat', 'dog')}
    assert loaded['meta']['epoch'] == 3
    assert_equal(loaded['state_dict'], tiny())
