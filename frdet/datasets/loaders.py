"""Making the settings of a data loader fit together and fit the machine."""

from collections.abc import MutableMapping
from typing import Any

import torch

#: Settings that PyTorch refuses where a loader has no worker process.
WORKER_SETTINGS = ('persistent_workers', 'prefetch_factor', 'timeout')


def resolve_workers(cfg: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Change every ``*_dataloader`` of a config in place, before MMEngine's Runner is built; returns ``cfg``.

    Without workers, the settings that need workers are dropped, so that ``num_workers=0`` is the only change to make.
    With a GPU, ``pin_memory`` is true by default: batches in pinned memory are copied while the GPU computes.
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
