"""tools/replay.py: the table of losses, the first bad module, the exit code."""

import pytest

from tests.engine import toy
from tests.engine.hooks.test_non_finite import config, stopped
from tests.tools.test_train_and_test import run_tool


@pytest.mark.parametrize(('how', 'code'), [('module', 1), (None, 0)])
def test_replay(tmp_path, how, code):
    stopped(config(tmp_path / 'run'))
    cfg = config(tmp_path, how)
    cfg.custom_imports = dict(imports=['tests.engine.hooks.test_non_finite'])
    cfg.dump(str(tmp_path / 'toy.py'))
    step = tmp_path / 'run' / 'non_finite_iter_2.pth'
    done = run_tool('replay', tmp_path / 'toy.py', step, root=toy.ROOT, PYTHONPATH=str(toy.ROOT))
    assert done.returncode == code, done.stderr
    rows = dict(line.split()[:2] for line in done.stdout.splitlines()[:-1])
    assert {'loss_cls', 'loss_bbox', 'loss'} <= set(rows)
    assert (rows['loss_cls'] == 'nan') == bool(code)
    assert ('that of breaks' in done.stdout) == bool(code)
