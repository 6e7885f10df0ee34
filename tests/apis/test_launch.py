"""Several processes."""

import json
import os
import re
import subprocess

import pytest
from mmengine.config import Config

from frdet.apis.launch import settle_launcher
from frdet.errors import ConfigError
from tests import warm
from tests.engine import toy


def test_one_process_changes_nothing():
    cfg = Config(dict(env_cfg=dict(dist_cfg=dict(backend='nccl'))))
    settle_launcher(cfg, 'none')
    assert cfg.launcher == 'none'
    assert cfg.env_cfg.dist_cfg.backend == 'nccl'
    assert 'model_wrapper_cfg' not in cfg


@pytest.fixture
def two_processes_with_gpus(monkeypatch):
    for name, value in (('RANK', '0'), ('LOCAL_RANK', '0'), ('WORLD_SIZE', '2')):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)


@pytest.mark.usefixtures('two_processes_with_gpus')
def test_the_configs_own_wrapper_wins(monkeypatch):
    # As of torch 2.14; before, the third was the first's name.
    def torchs_wrapper(module, *, forward_sync_buffers=None, gradient_as_bucket_view=False, broadcast_buffers=None): ...

    monkeypatch.setattr('frdet.apis.launch.DistributedDataParallel', torchs_wrapper)

    def wrapper(**cfg):
        cfg = Config(cfg)
        settle_launcher(cfg, 'pytorch')
        return cfg.model_wrapper_cfg

    default = dict(
        type='MMDistributedDataParallel',
        forward_sync_buffers=False,
        find_unused_parameters=False,
        gradient_as_bucket_view=True,
    )
    assert wrapper() == default
    assert wrapper(find_unused_parameters=True) == {**default, 'find_unused_parameters': True}
    given = dict(gradient_as_bucket_view=False, bucket_cap_mb=50)
    assert wrapper(model_wrapper_cfg=given) == {**default, **given}
    given = dict(broadcast_buffers=True)
    assert 'forward_sync_buffers' not in wrapper(model_wrapper_cfg=given)
    monkeypatch.setattr('frdet.apis.launch.DistributedDataParallel', lambda module, *, broadcast_buffers=True: None)
    assert wrapper()['broadcast_buffers'] is False
    other = dict(type='MMFullyShardedDataParallel', use_orig_params=True)
    assert wrapper(model_wrapper_cfg=other) == other


@pytest.mark.parametrize(('launcher', 'named'), [('pytorch', 'torchrun'), ('slurm', 'srun')])
def test_not_started_by_the_launcher(monkeypatch, launcher, named):
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'SLURM_NTASKS'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=named):
        settle_launcher(Config(dict()), launcher)


def test_unknown_launcher():
    with pytest.raises(ConfigError, match='mpi'):
        settle_launcher(Config(dict()), 'mpi')


def launched(script, *args, **env):
    return subprocess.run(
        [f'tools/{script}', *map(str, args)],
        cwd=toy.ROOT,
        env={**os.environ, **warm.launching(), 'PYTHONPATH': str(toy.ROOT), 'OMP_NUM_THREADS': '1', **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def write_config(path, **changes):
    changes = {'train_cfg.max_epochs': 2, 'val_dataloader.dataset.length': 7, **changes}
    cfg = toy.config('', **changes)
    cfg.pop('work_dir')
    cfg.custom_imports = dict(imports=['tests.engine.toy'])
    cfg.dump(str(path))
    return path


def test_two_processes_train(tmp_path):
    """The rate follows the images of both, 2 * 3; 12 images are 2 iterations an epoch; 7 are each validated once."""
    config = write_config(tmp_path / 'toy.py')
    done = launched('dist_train.sh', config, 2, '--work-dir', tmp_path / 'work')
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert 'processes 2 x images 3 x accumulated 1 = 6, so 0.02 x 6 / 16 = 0.0075' in output
    (file,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [r['iter'] for r in records if 'loss' in r] == [1, 2, 3, 4]
    assert records[-1]['coco/bbox_mAP'] == 0.07
    assert (tmp_path / 'work' / 'epoch_2.pth').is_file()


def test_an_error_in_one_process_ends_both(tmp_path):
    config = write_config(tmp_path / 'toy.py', **{'model.num_classes': 5})
    done = launched('dist_train.sh', config, 2, '--work-dir', tmp_path / 'work')
    assert done.returncode != 0
    assert re.search(r'^error.*the model has 5', done.stderr, re.MULTILINE)
    assert not (tmp_path / 'work').exists()


def test_synchronised_norms_need_gpus(tmp_path):
    config = write_config(tmp_path / 'toy.py', sync_bn='torch')
    done = launched('dist_train.sh', config, 2, '--work-dir', tmp_path / 'work', CUDA_VISIBLE_DEVICES='')
    assert done.returncode != 0
    assert re.search(r'^error.*SyncBN on several processes needs GPUs', done.stderr, re.MULTILINE)
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_usage(script):
    done = launched(script)
    assert done.returncode == 2
    assert done.stderr.startswith(f'usage: tools/{script}')


def test_slurm_command(tmp_path):
    """A stand-in for srun prints what it was given."""
    (tmp_path / 'srun').write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'srun').chmod(0o755)
    args = ('part', 'job', 'a config.py', 'w.pth', '--out', 'o.json')
    done = launched('slurm_test.sh', *args, PATH=f'{tmp_path}:{os.environ["PATH"]}', GPUS='4', PYTHON='python')
    words = done.stdout.splitlines()
    assert {'--partition=part', '--job-name=job', '--gres=gpu:4', '--ntasks=4', '--ntasks-per-node=4'} <= set(words)
    assert words[-7:] == [f'{toy.ROOT}/tools/test.py', 'a config.py', 'w.pth', '--launcher', 'slurm', '--out', 'o.json']


def test_one_slurm_task_joins_through_gloo(tmp_path):
    """What srun would set for the only task of a job on a machine without a GPU."""
    config = write_config(tmp_path / 'toy.py', **{'train_cfg.max_epochs': 1})
    slurm = dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0', SLURM_NODELIST='localhost')
    command = [warm.python(), 'tools/train.py', config, '--work-dir', tmp_path / 'work', '--launcher', 'slurm']
    env = {**os.environ, **slurm, 'CUDA_VISIBLE_DEVICES': '', 'PYTHONPATH': str(toy.ROOT), 'MASTER_PORT': '0'}
    done = subprocess.run(command, cwd=toy.ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
