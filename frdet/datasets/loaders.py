"""Settling a data loader's worker settings with one another."""

from collections.abc import MutableMapping
from typing import Any

#: Settings that PyTorch refuses where a loader has no worker process.
WORKER_SETTINGS = ('persistent_workers', 'prefetch_factor', 'timeout')


def settle_workers(cfg: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop from every ``*_dataloader`` without workers the settings that need one, so that ``num_workers=0`` suffices.

    Args:
        cfg: a config, changed in place; call it before MMEngine's Runner is built.

    Returns:
        ``cfg``.
    """
    for name in cfg:
        loader = cfg[name]
        if name.endswith('_dataloader') and isinstance(loader, MutableMapping) and not loader.get('num_workers', 0):
            for setting in WORKER_SETTINGS:
                loader.pop(setting, None)
    return cfg
