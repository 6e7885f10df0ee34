"""The text of a config."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from frdet.config import dump_config, load_config
from frdet.config.text import QuickConfig
from frdet.engine import DetRunner
from tests.engine import toy

CONFIGS = sorted((toy.ROOT / 'configs').glob('*/*.py'))


def read(text, folder):
    (folder / 'again.py').write_text(text)
    return load_config(folder / 'again.py').to_dict()


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_reads_back(path, tmp_path):
    cfg = load_config(path)
    text = dump_config(cfg)
    assert read(text, tmp_path) == cfg.to_dict()
    assert max(map(len, text.splitlines())) <= 120


def test_values_of_all_kinds_read_back(tmp_path):
    values = dict(
        empty=[dict(), [], (), ''],
        one=(1,),
        nested=((1, (2,)), [[3], (4, [dict(a=(5,))])]),
        words=["it's", 'a "word"', 'two\nlines', 'back\\slash', 'ü'],
        constants=[None, True, -1, 1e-5, 0.1, float('inf'), float('-inf'), b'x'],
        keys={'a.b': 1, 'class': dict(x=2), 3: 4, 'with space': [5]},
        long=['x' * 50, dict(y='y' * 150), ('z' * 90, 'w' * 40)],
    )
    assert read(dump_config(Config(dict(a=values))), tmp_path) == dict(a=values)


def test_objects_without_a_literal_become_strings(tmp_path):
    """MMEngine's text with a path in it is no Python."""
    given = dict(
        folder=Path('/data/a b'), number=np.float32(0.1), digits=Path('5'), dtype=torch.float32, names=[Path('x')]
    )
    expected = dict(folder='/data/a b', number=0.1, digits='5', dtype='torch.float32', names=['x'])
    assert read(dump_config(Config(dict(a=given))), tmp_path) == dict(a=expected)


def test_text():
    """What fits stays in a line; the type comes first, the other keys are sorted."""
    hooks = dict(b=dict(interval=1, type='B'), a=dict(type='A', names=['n' * 50, 'm' * 40]))
    text = dump_config(Config(dict(lr=0.1, hooks=dict(hooks, type='Hooks'), sizes=((32,), (64,)), **{'class': 1})))
    assert (
        text
        == f"""\
class = 1
hooks = dict(
    type='Hooks',
    a=dict(
        type='A',
        names=['{'n' * 50}', '{'m' * 40}'],
    ),
    b=dict(type='B', interval=1),
)
lr = 0.1
sizes = ((32,), (64,))
"""
    )


@pytest.mark.parametrize(('count', 'is_broken'), [(97, False), (98, True)])
def test_a_line_of_120(count, is_broken):
    """``    dict(name=('xx...', 1)),`` has 23 more columns than the x."""
    text = dump_config(Config(dict(a=[dict(name=('x' * count, 1)), 'y' * 50])))
    lines = text.splitlines()
    assert ("    dict(name=('" + 'x' * count + "', 1))," in lines) != is_broken
    assert max(map(len, lines)) <= 120


def test_a_run_writes_this_text(tmp_path):
    """Into the work dir and the checkpoints; a copy of its config stays as quick."""
    cfg = toy.config(tmp_path, **{'train_cfg.max_epochs': 1})
    runner = DetRunner.from_cfg(cfg)
    runner.train()
    text = dump_config(cfg)
    (written,) = tmp_path.glob('*.py')
    assert written.read_text() == text
    meta = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['meta']
    assert meta['cfg'] == text
    assert isinstance(runner.cfg, QuickConfig)
    assert type(copy.deepcopy(runner.cfg)) is type(copy.copy(runner.cfg)) is QuickConfig
    assert type(cfg) is Config
    assert Path(runner.cfg.filename or '').name == Path(cfg.filename or '').name
