"""Training with several processes: how they exchange gradients, on GPUs and on CPUs."""

import datetime
import inspect
import os
import subprocess
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed
from torch.nn.parallel import DistributedDataParallel

from frdet.errors import ConfigError

DDP = 'MMDistributedDataParallel'
#: Launcher -> the commands that start it, and the variables that it sets.
_STARTED_BY = {
    'pytorch': ('torchrun or tools/dist_train.sh', ('RANK', 'LOCAL_RANK', 'WORLD_SIZE')),
    'slurm': ('srun or tools/slurm_train.sh', ('SLURM_PROCID', 'SLURM_NTASKS')),
}
LAUNCHERS = ('none', *_STARTED_BY)


def resolve_launcher(cfg: Config, launcher: str) -> None:
    """Set the launcher and the model's wrapper in ``cfg``. Keys of ``model_wrapper_cfg`` in the config are kept.

    Without a GPU, also join the processes through gloo, which MMEngine cannot do.

    Raises:
        ConfigError: the launcher is unknown, or did not start this process.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(f'launcher is {launcher!r}, expected {", ".join(LAUNCHERS)}')
    cfg.launcher = launcher
    if launcher == 'none':
        return
    how, variables = _STARTED_BY[launcher]
    if missing := [name for name in variables if name not in os.environ]:
        raise ConfigError(f'--launcher {launcher}, but {", ".join(missing)} is not set: start it with {how}')
    cfg.model_wrapper_cfg = _wrapper(cfg)
    if torch.cuda.is_available():
        return
    distributed = dict(cfg.get('env_cfg', {}).get('dist_cfg', {}))
    cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
    # DistributedDataParallel takes no device ids for a model on the CPU, and MMEngine gives one unless told.
    cfg.model_wrapper_cfg['device_ids'] = None
    if launcher == 'slurm':
        _set_slurm_environment()
    if not is_distributed():
        # MMEngine would select a GPU first.
        timeout = datetime.timedelta(seconds=distributed.get('timeout') or 1800)
        torch.distributed.init_process_group('gloo', timeout=timeout)


def _wrapper(cfg: Config) -> dict[str, Any]:
    """The config's ``model_wrapper_cfg``, with defaults if it is an MMDistributedDataParallel."""
    given = dict(cfg.get('model_wrapper_cfg') or {})
    if given.get('type', DDP) != DDP:
        return given
    # A torch that has the new name warns of the old one.
    renamed = 'forward_sync_buffers' in inspect.signature(DistributedDataParallel).parameters
    buffers = 'forward_sync_buffers' if renamed and 'broadcast_buffers' not in given else 'broadcast_buffers'
    return {
        'type': DDP,
        buffers: False,
        # Every batch gives every trained parameter a gradient, also a batch without boxes.
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        # Gradients live in the exchanged buffers, which saves a copy of all of them.
        'gradient_as_bucket_view': True,
        **given,
    }


def _set_slurm_environment() -> None:
    """Set rank and world size for torch.distributed from Slurm's variables."""
    if 'MASTER_ADDR' not in os.environ:
        nodes = os.environ.get('SLURM_NODELIST', 'localhost')
        try:
            names = subprocess.run(['scontrol', 'show', 'hostname', nodes], capture_output=True, text=True, check=True)
            os.environ['MASTER_ADDR'] = names.stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            os.environ['MASTER_ADDR'] = nodes.split(',')[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    for name, its_name in (('RANK', 'SLURM_PROCID'), ('WORLD_SIZE', 'SLURM_NTASKS'), ('LOCAL_RANK', 'SLURM_LOCALID')):
        os.environ[name] = os.environ.get(its_name, '0')
