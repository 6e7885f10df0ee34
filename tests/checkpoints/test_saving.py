"""Checkpoint files are whole whenever a process dies, and a damaged one is known for what it is."""

import contextlib
import errno
import multiprocessing
import os
import random
import resource
import time

import pytest
import torch
from mmengine.runner import save_checkpoint

from frdet.checkpoints.saving import WHOLE, check_whole, newest_whole, write_whole
from frdet.engine import load_checkpoint
from frdet.errors import CheckpointError

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
