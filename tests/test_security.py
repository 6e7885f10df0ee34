"""Files from strangers: by whatever way a checkpoint comes in, no code in it runs; the tools read safe configs."""

import functools
import pickle

import pytest
import torch

from frdet.apis import test_detector as evaluate_detector
from frdet.apis import train_detector
from frdet.apis.training import replay_step
from frdet.errors import CheckpointError
from tests.apis.test_training import ToyWithBackbone  # noqa: F401  registers itself
from tests.checkpoints.test_reading import Trap
from tests.engine import toy
from tests.tools.test_train_and_test import run_tool

WAYS = ('load_from', 'resume', 'resume the newest', 'Pretrained', 'test', 'replay')


def call(way, cfg, path):
    """What a user would do with the file at ``path``."""
    if way == 'test':
        return functools.partial(evaluate_detector, cfg, path)
    if way == 'replay':
        return functools.partial(replay_step, cfg, path)
    if way == 'load_from':
        cfg.load_from = path
    elif way == 'Pretrained':
        cfg.model = dict(type='ToyWithBackbone', inner_init_cfg=dict(type='Pretrained', checkpoint=path))
    return functools.partial(train_detector, cfg, resume={'resume': path, 'resume the newest': True}.get(way, False))


@pytest.mark.parametrize('suffix', ['pth', 'pkl'])
@pytest.mark.parametrize('way', WAYS)
def test_code_in_a_file_is_refused_and_not_run(tmp_path, way, suffix):
    work, path = tmp_path / 'work', tmp_path / f'trap.{suffix}'
    trap = Trap(tmp_path / 'sprung')
    content = {'state_dict': {'w': torch.zeros(1), 'x': trap}, 'meta': trap, 'message_hub': trap, 'iter': trap}
    with open(path, 'wb') as file:
        (pickle.dump if suffix == 'pkl' else torch.save)(content, file)
    if way == 'resume the newest':
        work.mkdir()
        (work / 'last_checkpoint').write_text(str(path))
    with pytest.raises(CheckpointError, match='refused'):
        call(way, toy.config(work, **{'train_cfg.max_epochs': 1}), str(path))()
    assert not (tmp_path / 'sprung').exists()


@pytest.mark.parametrize('tool', ['train', 'test', 'print_config'])
def test_tools_read_safe_configs(tmp_path, tool):
    (tmp_path / 'a.py').write_text(f'import os\nos.mkdir({str(tmp_path / "sprung")!r})\n')
    more = ('weights.pth',) if tool == 'test' else ()
    done = run_tool(tool, tmp_path / 'a.py', *more, '--safe-config', root=tmp_path)
    assert done.returncode == 1
    assert f'error: {tmp_path}/a.py:1: found' in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'sprung').exists()
