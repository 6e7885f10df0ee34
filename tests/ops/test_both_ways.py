"""The same tests in other processes: without the extension, with lesser instruction sets, under another torch."""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest
import torch

from frdet import ops
from frdet.ops import loading
from tests import warm
from tests.ops.boxes import random_boxes, random_rois

ROOT = Path(__file__).resolve().parents[2]
SHARED = [f'tests/ops/test_{name}.py' for name in ('nms', 'roi_align', 'max_iou')]
OTHER_TORCH = '2.13.0'

needs_extension = pytest.mark.skipif(
    'cpu' not in loading.status().loaded, reason=f'about the extension, {loading.status().missing.get("cpu")}'
)


def run(command: list[str], **environment: str) -> str:
    """Runs a command in the repository; returns its output, and fails with it."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_operators_without_the_extension() -> None:
    """All but the long numeric derivatives, which are those of torchvision's operators there."""
    words = ['-q', '-p', 'no:cacheprovider', '-k', 'not gradcheck', *SHARED, 'tests/ops/test_derivatives.py']
    run([warm.python(), '-m', 'pytest', *words], FRDET_NO_EXT='1')


@needs_extension
@pytest.mark.parametrize('name', ['baseline', 'avx2'])
def test_operators_with_lesser_instructions(name: str) -> None:
    """The vector kernels alone differ: one slow loop for the 16-bit types, the fast tests for the rest."""
    chosen = 'every_size or at_the_threshold or are_torchvisions or max_iou_is_the_loop or (loops and 0-True and cpu)'
    run([warm.python(), '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-k', chosen, *SHARED], FRDET_ISA=name)


def test_one_warning_at_first_use() -> None:
    program = (
        'import warnings, torch\n'
        'with warnings.catch_warnings(record=True) as at_import:\n'
        '    warnings.simplefilter("always")\n'
        '    from frdet import ops\n'
        'assert not [w for w in at_import if "frdet" in str(w.message)]\n'
        'with warnings.catch_warnings(record=True) as at_use:\n'
        '    warnings.simplefilter("always")\n'
        '    for _ in range(3):\n'
        '        ops.nms(torch.zeros(2, 4), torch.zeros(2), 0.5)\n'
        '        ops.roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2)\n'
        'messages = [str(w.message) for w in at_use if "frdet" in str(w.message)]\n'
        'assert len(messages) == 1 and "FRDET_NO_EXT=1" in messages[0] and "doctor" in messages[0], messages\n'
    )
    run([warm.python(), '-c', program], FRDET_NO_EXT='1')


def test_the_extension_is_there() -> None:
    """So that the tests of the extension cannot all be skipped without notice."""
    if os.environ.get('FRDET_NO_EXT') == '1':
        pytest.skip('FRDET_NO_EXT=1 asks for tests without it')
    assert 'cpu' in loading.status().loaded, f'{loading.status().missing}; see `python tools/doctor.py`'


@needs_extension
def test_matching_needs_little_memory() -> None:
    program = (
        'import resource, torch\n'
        'from frdet import ops\n'
        'boxes = torch.rand(268_000, 4); boxes[:, 2:] += boxes[:, :2]\n'
        'ops.max_iou(boxes[:4000], boxes[:60])\n'
        'peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'before = peak(); ops.max_iou(boxes, boxes[:60]); print("KiB", peak() - before)\n'
    )
    used = int(run([sys.executable, '-c', program]).split()[-1])
    assert used < 20 << 10  # the matrix of IoUs would take 64 MB


def other_python() -> Path:
    """A Python with another torch, in an environment that is made once and kept in the folder for temporary files."""
    folder = (
        Path(tempfile.gettempdir()) / f'frdet-tests-torch-{OTHER_TORCH}-py{sys.version_info[0]}{sys.version_info[1]}'
    )
    python, done = folder / 'bin/python', folder / 'installed'
    if done.is_file():
        return python
    venv.create(folder, with_pip=True, clear=True)
    command = [str(python), '-m', 'pip', 'install', '--quiet', '--no-compile', '--no-deps', f'torch=={OTHER_TORCH}']
    installed = subprocess.run(command, text=True, capture_output=True, check=False)
    if installed.returncode:
        pytest.skip(f'torch {OTHER_TORCH} cannot be installed here: {installed.stderr.strip().splitlines()[-1]}')
    done.touch()
    return python


@needs_extension
def test_the_library_loads_under_another_torch(tmp_path: Path) -> None:
    """The library that was built against this torch, in a process with one that is older."""
    if torch.__version__.startswith(OTHER_TORCH):
        pytest.skip(f'this is torch {OTHER_TORCH}')
    x, rois = torch.randn(2, 20, 12, 14), random_rois(9, 2)
    boxes, scores = random_boxes(300), torch.rand(300)
    results = [ops.roi_align(x, rois, 3, 0.1, 2, True), ops.nms(boxes, scores, 0.5), *ops.max_iou(boxes, boxes[:5])]
    torch.save([x, rois, boxes, scores, results], tmp_path / 'expected.pt')
    # The other torch is found first; the packages that it needs come from this environment. Their path is not kept in
    # the other environment, which may outlive this one.
    program = f"""
import sys
sys.path.append({str(Path(torch.__file__).parents[1])!r})
import torch
assert torch.__version__.startswith({OTHER_TORCH!r}), torch.__version__
torch.ops.load_library({str(loading.LIBRARIES['cpu'])!r})
x, rois, boxes, scores, expected = torch.load({str(tmp_path / 'expected.pt')!r})
ops = torch.ops.frdet
found = [ops.roi_align(x, rois, 0.1, 3, 3, 2, True), ops.nms(boxes, scores, 0.5)]
found += [y[0] for y in ops.max_iou(boxes, boxes[None, :5], None, 0.0)]
assert all(a.equal(b) for a, b in zip(found, expected, strict=True))
shapes, rule = [2, 20, 12, 14, 2, 20, 12, 14], (224.0, 4.0, 2, 1e-8, 0.0)
many = ops.multiscale_roi_align([x, x], rois, [0.1, 0.1], 3, 3, 2, True, *rule)
grads = ops.multiscale_roi_align_backward(many, rois, [0.1, 0.1], 3, 3, 2, True, *rule, shapes, True)
assert many.equal(expected[0]) and len(grads) == 2
try:
    ops.nms(boxes[:, :3], scores, 0.5)
except RuntimeError as error:
    assert 'expected (N, 4)' in str(error), error
"""
    run([str(other_python()), '-c', program], PYTHONPATH='')
