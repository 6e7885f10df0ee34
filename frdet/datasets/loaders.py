"""Settling a data loader's settings with one another and with the machine."""

from collections.abc import MutableMapping
from typing import Any

import torch

#: Settings that PyTorch refuses where a loader has no worker process.
WORKER_SETTINGS = ('persistent_workers', 'prefetch_factor', 'timeout')


def settle_workers(cfg: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop from every ``*_dataloader`` without workers the settings that need one, so that ``num_workers=0`` suffices.

    Where there is a GPU, batches are handed over in pinned memory unless ``pin_memory`` is given: from there they are
    copied while the GPU computes.

    Args:
        cfg: a config, changed in place; call it before MMEngine's Runner is built.

    Returns:
        ``cfg``.
    """
    for name in cfg:
        loader = cfg[name]
        if not (name.endswith('_dataloader') and isinstance(loader, MutableMapping)):
            continue
        if torch.cuda.is_available():
            loader.setdefault('pin_memory', True)
        if not loader.get('num_workers', 0):
            for setting in WORKER_SETTINGS:
                loader.pop(setting, None)
    return cfg
