"""Several processes: how they exchange gradients, and what MMEngine sets up for GPUs made to work on CPUs too."""

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
LAUNCHERS = ('none', 'pytorch', 'slurm')
_RANK_VARIABLES = {'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'), 'slurm': ('SLURM_PROCID', 'SLURM_NTASKS')}


def settle_launcher(cfg: Config, launcher: str) -> None:
    """Set the launcher and the model's wrapper in ``cfg``; a key of the config's ``model_wrapper_cfg`` wins.

    Without a GPU, also join the processes through gloo, which MMEngine cannot.

    Raises:
        ConfigError: the launcher is unknown, or did not start this process.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(f'launcher is {launcher!r}, expected {", ".join(LAUNCHERS)}')
    cfg.launcher = launcher
    if launcher == 'none':
        return
    if missing := [name for name in _RANK_VARIABLES[launcher] if name not in os.environ]:
        how = {'pytorch': 'torchrun or tools/dist_train.sh', 'slurm': 'srun or tools/slurm_train.sh'}[launcher]
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
        # MMEngine selects a GPU before it joins.
        timeout = datetime.timedelta(seconds=distributed.get('timeout') or 1800)
        torch.distributed.init_process_group('gloo', timeout=timeout)


def _wrapper(cfg: Config) -> dict[str, Any]:
    """The config's ``model_wrapper_cfg`` over defaults, if it is of the kind that these are for."""
    given = dict(cfg.get('model_wrapper_cfg') or {})
    if given.get('type', DDP) != DDP:
        return given
    # Where torch has the new name, the old one warns.
    renamed = 'forward_sync_buffers' in inspect.signature(DistributedDataParallel).parameters
    buffers = 'forward_sync_buffers' if renamed and 'broadcast_buffers' not in given else 'broadcast_buffers'
    return {
        'type': DDP,
        buffers: False,
        # Every trained parameter gets a gradient from every batch, also from one without boxes.
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        # Saves a copy of all gradients: they live in the buffers that are exchanged.
        'gradient_as_bucket_view': True,
        **given,
    }


def _set_slurm_environment() -> None:
    """Slurm's names of rank and size, as torch.distributed reads them."""
    if 'MASTER_ADDR' not in os.environ:
        nodes = os.environ.get('SLURM_NODELIST', 'localhost')
        try:
            names = subprocess.run(['scontrol', 'show', 'hostname', nodes], capture_output=True, text=True, check=True)
            os.environ['MASTER_ADDR'] = names.stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            os.environ['MASTER_ADDR'] = nodes.split(',')[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ.get('SLURM_LOCALID', '0')
