"""Compiles the extension: libfrdet_cpu.so and, where a CUDA torch and nvcc are found, libfrdet_cuda.so.

setup.py calls it, and it is a command: ``python ops/build.py``. torch is found but not imported: in pip's build
isolation, where there is no torch, the build leaves the extension out instead of failing. The libraries use torch's
stable ABI and no Python, so one build works with every torch from 2.11 on and every Python.

Environment: FRDET_NO_EXT=1 compiles nothing. FRDET_CUDA=0 leaves the CUDA kernels out, FRDET_CUDA=1 fails without them.
TORCH_CUDA_ARCH_LIST names the GPU architectures (default 8.0;9.0), CXX the compiler, CUDA_HOME the folder of CUDA.
FRDET_SANITIZE=1 adds AddressSanitizer and UndefinedBehaviorSanitizer to the CPU library.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
TARGET = '0x020b000000000000'  # torch 2.11, the oldest version that can load the libraries
CPU_LIBRARY, CUDA_LIBRARY = 'libfrdet_cpu.so', 'libfrdet_cuda.so'
DEFAULT_ARCHS = '8.0;9.0'  # Ampere and Hopper; newer GPUs use the PTX of the last

# No contraction: a fused multiply-add would change results at the IoU threshold. Vector kernels fuse explicitly.
CXX_FLAGS = ['-O3', '-std=c++20', '-fPIC', '-Wall', '-Wextra', '-ffp-contract=off', '-fvisibility=hidden']
# GCC 12 warns of an undefined register in its own AVX-512 intrinsics.
AVX512_FLAGS = ['-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mprefer-vector-width=512']
INSTRUCTION_SETS = {
    'baseline': [],
    'avx2': ['-mavx2', '-mfma', '-mf16c'],
    'avx512': ['-mavx2', '-mfma', '-mf16c', *AVX512_FLAGS, '-Wno-uninitialized', '-Wno-maybe-uninitialized'],
}
SANITIZERS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer', '-g', '-O1']
# `undefined` lacks float-cast-overflow, which finds a cast of a RoI's huge or NaN border.
SANITIZERS.append('-fsanitize=float-cast-overflow')


class BuildError(Exception):
    """The reason why there is no library, in one or two lines."""


@dataclass(frozen=True)
class Torch:
    """An installed torch: all that a compiler needs."""

    root: Path
    version: str
    cuda: str | None

    @property
    def flags(self) -> list[str]:
        return [f'-DTORCH_TARGET_VERSION={TARGET}', '-isystem', str(self.root / 'include')]


def find_torch() -> Torch:
    """The torch of this interpreter. Raises BuildError if it is missing or too old."""
    spec = importlib.util.find_spec('torch')
    if spec is None or not spec.submodule_search_locations:
        raise BuildError('torch is not visible here; install it first, then frdet with --no-build-isolation')
    root = Path(spec.submodule_search_locations[0])
    text = (root / 'version.py').read_text()
    version = re.search(r"__version__ = '([^']+)'", text)
    cuda = re.search(r"^cuda[^=]*= '([^']+)'", text, re.MULTILINE)
    if version is None or tuple(int(n) for n in re.findall(r'\d+', version[1])[:2]) < (2, 11):
        raise BuildError(f'found torch {version[1] if version else "?"}, the extension needs 2.11 or newer')
    if not (root / 'include/torch/csrc/stable/library.h').is_file():
        raise BuildError(f'no headers of torch in {root / "include"}; install the official wheel')
    return Torch(root=root, version=version[1], cuda=cuda[1] if cuda else None)


def find_compiler() -> str:
    """The C++ compiler. Raises BuildError if there is none."""
    names = [os.environ['CXX']] if os.environ.get('CXX') else ['g++', 'c++', 'clang++']
    for name in names:
        if shutil.which(name.split()[0]):
            return name
    raise BuildError(f'no C++ compiler ({", ".join(names)}); install g++ 11 or newer, or set CXX')


def find_nvcc() -> Path | None:
    """The nvcc in CUDA_HOME or on the path; None if there is none."""
    home = os.environ.get('CUDA_HOME') or os.environ.get('CUDA_PATH')
    if home and (Path(home) / 'bin/nvcc').is_file():
        return Path(home) / 'bin/nvcc'
    found = shutil.which('nvcc')
    return Path(found) if found else None


def wants_cuda(torch: Torch) -> bool:
    """Whether to compile the CUDA kernels. Raises BuildError if FRDET_CUDA=1 and they cannot be compiled."""
    asked = os.environ.get('FRDET_CUDA', '')
    if asked not in ('', '0', '1'):
        raise BuildError(f'FRDET_CUDA is {asked!r}, expected 0 or 1')
    if asked == '0':
        return False
    missing = [] if torch.cuda else [f'torch {torch.version} is built without CUDA']
    missing += [] if find_nvcc() else ['nvcc is not on the path nor in CUDA_HOME']
    if asked == '1' and missing:
        raise BuildError(f'FRDET_CUDA=1, but {" and ".join(missing)}')
    return not missing


def arch_flags(archs: str) -> list[str]:
    """nvcc's flags for a TORCH_CUDA_ARCH_LIST such as '8.0;9.0+PTX'. The last architecture always has PTX."""
    names = [name for name in re.split(r'[;, ]+', archs) if name]
    flags = []
    for name in names:
        match = re.fullmatch(r'(\d+)\.(\d+[a-z]?)(\+PTX)?', name)
        if match is None:
            raise BuildError(f'TORCH_CUDA_ARCH_LIST holds {name!r}, expected numbers such as 8.0;9.0+PTX')
        code = match[1] + match[2]
        flags.append(f'-gencode=arch=compute_{code},code=sm_{code}')
        if match[3] or name == names[-1]:
            flags.append(f'-gencode=arch=compute_{code},code=compute_{code}')
    return flags


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f'{" ".join(command)}\n{done.stdout}{done.stderr}'.rstrip())
    if done.stderr.strip():
        print(done.stderr.rstrip(), file=sys.stderr)


def _cpu_commands(torch: Torch, folder: Path) -> tuple[list[list[str]], list[str]]:
    """The commands that compile, which may run in parallel, and the command that links."""
    cxx = find_compiler().split()
    flags = [*CXX_FLAGS, *torch.flags]
    sanitize = SANITIZERS if os.environ.get('FRDET_SANITIZE') == '1' else []
    is_x86 = platform.machine().lower() in ('x86_64', 'amd64')
    if is_x86:
        flags.append('-DFRDET_X86')
    compile_, objects = [], []

    def add(source: Path, name: str, extra: list[str]) -> None:
        objects.append(str(folder / f'{name}.o'))
        compile_.append([*cxx, *flags, *extra, *sanitize, '-c', str(source), '-o', objects[-1]])

    for name in ('cpu/roi_align', 'cpu/nms', 'cpu/max_iou', 'cpu/enlarge', 'schema', 'cpu/dispatch'):  # slowest first
        add(SOURCES / f'{name}.cpp', Path(name).stem, [])
    for name in INSTRUCTION_SETS if is_x86 else ['baseline']:
        names = [f'-DFRDET_ISA={name}', f'-DFRDET_ISA_NAME="{name}"']
        add(SOURCES / 'cpu/kernels.cpp', f'kernels_{name}', [*INSTRUCTION_SETS[name], *names])
    link = [*cxx, '-shared', *sanitize, *objects, f'-L{torch.root / "lib"}', '-ltorch_cpu']
    return compile_, link


def _cuda_commands(torch: Torch, folder: Path) -> tuple[list[list[str]], list[str]]:
    nvcc = str(find_nvcc())
    archs = arch_flags(os.environ.get('TORCH_CUDA_ARCH_LIST') or DEFAULT_ARCHS)
    flags = ['-O3', '-std=c++20', '--fmad=false', '-Xcompiler', '-fPIC,-fvisibility=hidden', '-DUSE_CUDA']
    flags += ['-ccbin', find_compiler().split()[0], *torch.flags, *archs]
    compile_, objects = [], []
    for source in ('roi_align', 'nms', 'max_iou'):
        objects.append(str(folder / f'{source}_cuda.o'))
        compile_.append([nvcc, *flags, '-c', str(SOURCES / f'cuda/{source}.cu'), '-o', objects[-1]])
    link = [nvcc, '-shared', '-cudart', 'shared', *archs, *objects]
    link += [f'-L{torch.root / "lib"}', '-ltorch_cpu', '-ltorch_cuda', '-lc10_cuda']
    return compile_, link


def _stamp(other: str, *commands: list[list[str]]) -> str:
    """A hash of the commands, without temporary folders, and of the sources outside the folder ``other``."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.rglob('*')):
        if source.suffix in ('.cpp', '.cu', '.h', '.cuh') and source.parent.name != other:
            digest.update(source.name.encode() + source.read_bytes())
    words = [[Path(word).name if word.endswith('.o') else word for word in line] for part in commands for line in part]
    digest.update(json.dumps(words).encode())
    return digest.hexdigest()


def build(out: Path, force: bool = False) -> list[Path]:
    """Compiles the libraries into ``out``, except libraries that are up to date.

    Returns:
        The libraries in ``out``; none with FRDET_NO_EXT=1.

    Raises:
        BuildError: the CPU library cannot be built, or FRDET_CUDA=1 and the CUDA library cannot.
    """
    if os.environ.get('FRDET_NO_EXT') == '1':
        print('frdet: FRDET_NO_EXT=1, the extension is not compiled')
        return []
    torch = find_torch()
    with_cuda = wants_cuda(torch)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = {CPU_LIBRARY: _cpu_commands(torch, folder)}
        if with_cuda:
            jobs[CUDA_LIBRARY] = _cuda_commands(torch, folder)
        stale = {}
        for library, (compile_, link) in jobs.items():
            stamp = _stamp('cuda' if library == CPU_LIBRARY else 'cpu', compile_, [link])
            stamp_file = out / f'{library}.stamp'
            if force or not (out / library).is_file() or not stamp_file.is_file() or stamp_file.read_text() != stamp:
                stale[library] = (compile_, link, stamp)
        with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
            # CUDA first, because its files take longest.
            pending = {
                library: [pool.submit(_run, line) for line in stale[library][0]] for library in reversed(list(stale))
            }
            failed = {}
            for library, futures in pending.items():
                try:
                    for future in futures:
                        future.result()
                    # Linked elsewhere and then moved: a process may have the old library loaded.
                    _run([*stale[library][1], '-o', str(folder / library)])
                    shutil.copy2(folder / library, out / f'{library}.new')
                    os.replace(out / f'{library}.new', out / library)
                    (out / f'{library}.stamp').write_text(stale[library][2])
                except BuildError as error:
                    failed[library] = error
    if CPU_LIBRARY in failed or os.environ.get('FRDET_CUDA') == '1' and failed:
        raise next(iter(failed.values()))
    for library, error in failed.items():
        print(f'frdet: {library} is left out:\n{error}', file=sys.stderr)
    return [out / library for library in jobs if library not in failed]


def build_or_explain(out: Path) -> list[Path]:
    """``build``, but an error is only printed: frdet works without the extension."""
    try:
        return build(out)
    except BuildError as error:
        if os.environ.get('FRDET_CUDA') == '1':
            raise
        print(f'frdet: the extension is not compiled: {error}', file=sys.stderr)
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description='Compile the extension.')
    parser.add_argument('--out', type=Path, default=SOURCES.parent / 'frdet/ops', help='folder for the libraries')
    parser.add_argument('--force', action='store_true', help='also compile libraries that are up to date')
    arguments = parser.parse_args()
    try:
        libraries = build(arguments.out, arguments.force)
    except BuildError as error:
        sys.exit(f'frdet: {error}')
    print('\n'.join(str(library) for library in libraries))


if __name__ == '__main__':
    main()
