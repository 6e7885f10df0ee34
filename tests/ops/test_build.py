"""How the extension is built, and what doctor says of it. Nothing is compiled here."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from frdet.ops import doctor, loading

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def build() -> ModuleType:
    """ops/build.py, which is in no package."""
    spec = importlib.util.spec_from_file_location('frdet_ops_build', ROOT / 'ops/build.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_torch_is_found_without_importing_it(build: ModuleType) -> None:
    found = build.find_torch()
    assert (found.version, found.cuda) == (torch.__version__, torch.version.cuda)
    program = f'import runpy, sys; runpy.run_path({str(ROOT / "ops/build.py")!r}); assert "torch" not in sys.modules'
    subprocess.run([sys.executable, '-c', program], check=True)


def test_installation_goes_on_without_torch_or_compiler(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv('FRDET_NO_EXT', raising=False)
    monkeypatch.setenv('FRDET_CUDA', '0')
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert build.build_or_explain(tmp_path) == []
    assert 'no C++ compiler (no-such-compiler)' in capsys.readouterr().err
    # As in pip's isolated build: no torch in sight.
    command = [sys.executable, '-S', str(ROOT / 'ops/build.py'), '--out', str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': ''}, check=False)
    assert done.returncode == 1 and 'torch is not visible here' in done.stderr
    monkeypatch.setenv('FRDET_NO_EXT', '1')
    assert build.build_or_explain(tmp_path) == []
    assert 'FRDET_NO_EXT=1' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_cuda_that_is_asked_for_must_be_there(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('FRDET_CUDA', '1')
    without = build.Torch(root=Path(), version='2.14.0+cpu', cuda=None)
    with pytest.raises(build.BuildError, match=r'torch 2\.14\.0\+cpu is built without CUDA'):
        build.wants_cuda(without)
    monkeypatch.setenv('FRDET_CUDA', '')
    assert not build.wants_cuda(without)
    monkeypatch.setenv('FRDET_CUDA', 'yes')
    with pytest.raises(build.BuildError, match="'yes', expected 0 or 1"):
        build.wants_cuda(without)


def test_architectures(build: ModuleType) -> None:
    assert build.arch_flags('8.0;9.0a') == [
        '-gencode=arch=compute_80,code=sm_80',
        '-gencode=arch=compute_90a,code=sm_90a',
        '-gencode=arch=compute_90a,code=compute_90a',
    ]
    with pytest.raises(build.BuildError, match="'Ampere'"):
        build.arch_flags('Ampere')


def test_cuda_kernels_are_compiled_where_they_can_be(build: ModuleType) -> None:
    """And load, even where there is no GPU."""
    if os.environ.get('FRDET_NO_EXT') == '1' or os.environ.get('FRDET_CUDA') == '0':
        pytest.skip('FRDET_NO_EXT or FRDET_CUDA asks for tests without them')
    if not build.wants_cuda(build.find_torch()):
        pytest.skip('no nvcc, or a torch without CUDA')
    assert loading.status().loaded == ('cpu', 'cuda'), loading.status().missing
    assert set(doctor.kernels('cuda')) == set(doctor.kernels('cpu')) - {'enlarge'} != set()  # made before the GPU


def test_doctor_names_what_matters() -> None:
    report = doctor.report()
    for words in (torch.__version__.split('+')[0], 'C++ compiler', 'nvcc', 'cpu kernels', 'cuda kernels', 'torch CUDA'):
        assert words in report


def test_doctor_puts_a_blank_after_a_long_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, 'facts', lambda: [('faster-coco-eval', '1.8.0'), ('torch', '2.0')])
    assert doctor.report().startswith('faster-coco-eval 1.8.0\ntorch           2.0\n')


@pytest.mark.parametrize(
    ('missing', 'words'),
    [
        ({}, []),
        ({'cpu': 'FRDET_NO_EXT=1', 'cuda': 'x'}, ['unset it']),
        ({'cpu': 'libfrdet_cpu.so has not been built', 'cuda': 'x'}, ['pip install --no-build-isolation -e .']),
    ],
)
def test_doctors_advice(missing: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tuple(name for name in loading.LIBRARIES if name not in missing)
    monkeypatch.setattr(loading, '_STATUS', loading.Status(loaded, missing))
    monkeypatch.setenv('CXX', sys.executable)  # any program will do
    advice = doctor.advice()
    assert len(advice) == len(words)
    for text, word in zip(advice, words, strict=True):
        assert word in text
