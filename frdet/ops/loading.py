"""Finds and loads the extension's libraries. Without them the operators run on torchvision's kernels.

FRDET_NO_EXT=1 loads none; FRDET_LIBRARY_DIR names another folder with the libraries.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(os.environ.get('FRDET_LIBRARY_DIR') or Path(__file__).resolve().parent).absolute()
LIBRARIES = {'cpu': FOLDER / 'libfrdet_cpu.so', 'cuda': FOLDER / 'libfrdet_cuda.so'}


@dataclass(frozen=True)
class Status:
    """The libraries that are loaded.

    Attributes:
        loaded: 'cpu', 'cuda', or both.
        missing: the reason for each that is not.
    """

    loaded: tuple[str, ...]
    missing: dict[str, str]

    def describe(self, device_type: str) -> str:
        """In words, the kernels that a device uses."""
        if device_type in self.loaded:
            return "frdet's"
        return f"torchvision's ({self.missing.get(device_type, 'none for this device')})"


def _load(name: str) -> str | None:
    """Loads one library. Returns the reason if it is not loaded."""
    if os.environ.get('FRDET_NO_EXT') == '1':
        return 'FRDET_NO_EXT=1'
    if name == 'cuda' and torch.version.cuda is None:
        return 'this torch is built without CUDA'
    if not LIBRARIES[name].is_file():
        return f'{LIBRARIES[name].name} has not been built'
    try:
        torch.ops.load_library(str(LIBRARIES[name]))
    except OSError as error:
        return f'{LIBRARIES[name].name} does not load: {error}'
    return None


def _load_all() -> Status:
    missing: dict[str, str] = {}
    for name in LIBRARIES:  # the CPU library comes first: it holds the schemas
        if (reason := 'the CPU library is missing' if missing else _load(name)) is not None:
            missing[name] = reason
    return Status(tuple(name for name in LIBRARIES if name not in missing), missing)


_STATUS = _load_all()
_LOADED = frozenset(_STATUS.loaded)
_warned: set[str] = set()


def status() -> Status:
    """The libraries that were loaded when ``frdet.ops`` was imported."""
    return _STATUS


def is_native(tensor: Tensor) -> bool:
    """Whether the extension has kernels for this tensor's device. Warns at the first use without them."""
    device_type = tensor.device.type
    if device_type in _LOADED or (device_type == 'meta' and _LOADED):
        return True
    if not torch.compiler.is_compiling() and device_type in LIBRARIES and device_type not in _warned:
        _warned.add(device_type)
        warnings.warn(
            f"frdet's {device_type} kernels are not loaded ({_STATUS.missing[device_type]}); torchvision's, which are "
            'slower, are used instead. `python tools/doctor.py` says what to do.',
            RuntimeWarning,
            stacklevel=4,
        )
    return False
