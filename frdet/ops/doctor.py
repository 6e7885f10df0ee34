"""The text of ``tools/doctor.py``: versions, devices, kernels, and what to do about missing ones."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from frdet.ops import loading

PACKAGES = ('frdet', 'torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'numpy', 'pycocotools', 'hotcoco')
VARIABLES = ('FRDET_NO_EXT', 'FRDET_CUDA', 'FRDET_ISA', 'FRDET_LIBRARY_DIR', 'TORCH_CUDA_ARCH_LIST', 'CXX', 'CUDA_HOME')
REBUILD = 'pip install --no-build-isolation -e .'


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_line(command: list[str], holding: str = '') -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if holding in line]
    return lines[0].strip() if lines else f'{command[0]} says nothing (exit code {done.returncode})'


def _compiler() -> str | None:
    names = [os.environ['CXX']] if os.environ.get('CXX') else ['g++', 'c++', 'clang++']
    return next((path for name in names if (path := shutil.which(name.split()[0]))), None)


def _nvcc() -> str | None:
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    in_home = Path(home) / 'bin/nvcc' if home else None
    return str(in_home) if in_home and in_home.is_file() else shutil.which('nvcc')


def facts() -> Iterator[tuple[str, str]]:
    """Names and values, in the order to print them."""
    yield 'system', f'{platform.platform()}, {os.cpu_count()} CPUs'
    yield 'python', f'{platform.python_version()} ({sys.executable})'
    for package in PACKAGES:
        if version := _version(package):
            yield package, version
    yield 'torch threads', f'{torch.get_num_threads()}, {torch.backends.cpu.get_cpu_capability()}'
    yield 'torch CUDA', torch.version.cuda or 'built without'
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            yield f'GPU {i}', f'{torch.cuda.get_device_name(i)}, {torch.cuda.get_device_capability(i)}'
    else:
        yield 'GPU', 'none that torch can use'
    compiler, nvcc = _compiler(), _nvcc()
    yield 'C++ compiler', f'{_first_line([compiler, "--version"])} ({compiler})' if compiler else 'none'
    yield 'nvcc', f'{_first_line([nvcc, "--version"], "release")} ({nvcc})' if nvcc else 'none'
    for name in VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]
    status = loading.status()
    for device_type, library in loading.LIBRARIES.items():
        yield f'{device_type} kernels', status.describe(device_type)
        if device_type in status.loaded:
            yield '', f'{library} ({", ".join(kernels(device_type))})'


def kernels(device_type: str) -> list[str]:
    """The names of the operators with a kernel for a device."""
    names = [name for name in torch._C._dispatch_get_all_op_names() if name.startswith('frdet::')]
    key = {'cpu': 'CPU', 'cuda': 'CUDA'}[device_type]
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return sorted(name.removeprefix('frdet::') for name in names if has(name, key))


def advice() -> list[str]:
    """A sentence for each thing that is missing: what to do about it."""
    missing, result = loading.status().missing, []
    if 'cpu' in missing:
        if missing['cpu'] == 'FRDET_NO_EXT=1':
            result.append('FRDET_NO_EXT=1 leaves the extension out: unset it to have the kernels.')
        elif _compiler() is None:
            result.append(f'There is no C++ compiler: install g++ 11 or newer, then `{REBUILD}`.')
        else:
            result.append(f'The CPU kernels are missing ({missing["cpu"]}): `{REBUILD}`, and read what it prints.')
    elif 'cuda' in missing and torch.version.cuda is not None:
        if not torch.cuda.is_available() and _nvcc() is None:
            result.append('No GPU and no nvcc: the CUDA kernels are not needed here.')
        elif _nvcc() is None:
            result.append(f'There is a GPU but no nvcc: install CUDA {torch.version.cuda}, set CUDA_HOME, `{REBUILD}`.')
        else:
            result.append(f'The CUDA kernels are missing ({missing["cuda"]}): `FRDET_CUDA=1 {REBUILD}` says why.')
    if _version('mmengine') is None and _version('onedl-mmengine') is None:
        result.append('MMEngine is missing: `pip install mmengine`.')
    return result


def report() -> str:
    """The facts and the advice as text."""
    lines = [f'{name:<15} {value}' for name, value in facts()]
    return '\n'.join([*lines, '', *(advice() or ['Nothing is missing.'])])
