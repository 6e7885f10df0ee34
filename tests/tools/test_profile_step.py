import importlib.util
import subprocess

import pytest
import torch
from mmengine.optim import OptimWrapper

from tests import warm
from tests.engine.toy import ROOT


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('profile_step', ROOT / 'tools/profile_step.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_overlapping_kernels_count_once(tool):
    # 0 to 4 is covered by two, one of them inside the other; 6 to 7; 9 to 9 is nothing.
    assert tool.covered([(6, 7), (0, 4), (1, 2), (3, 4), (9, 9)]) == 5
    assert tool.covered([(0, 2), (1, 3)]) == 3
    assert tool.covered([]) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_it_says_so():
    done = subprocess.run([warm.python(), 'tools/profile_step.py'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == 'error: torch finds no GPU here, and this profiles kernels on one\n'


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_a_row(tool):
    images, dtype, _, _, busy, _, _ = tool.row('configs/faster_rcnn/r50_fpn_1x_coco.py', 1, OptimWrapper)[2:-2].split(
        ' | '
    )
    assert (images, dtype) == ('1', 'float32')
    assert 0 < int(busy.rstrip('%')) <= 105  # kernels are a little slower under the profiler
