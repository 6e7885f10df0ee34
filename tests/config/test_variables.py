"""A variable that a config changes after other values were made of it: effect or error, never silence."""

from pathlib import Path

import pytest

from frdet.config import load_config
from frdet.errors import ConfigError

BASE = """
root = 'one/'
norm = dict(type='BN', eps=1e-5)
steps = [dict(type='LoadImage'), dict(type='PackDetInputs')]
size = 3
unused = 7
model = dict(neck=dict(norm=norm), widths=[size, 2 * size])
train_dataloader = dict(root=root, pipeline=steps)
val_evaluator = dict(ann_file=root + 'val.json')
"""
MIDDLE = "_base_ = './base.py'\nother = 1\n"


def write(folder: Path, **files: str) -> Path:
    for name, text in {'base': BASE, 'middle': MIDDLE, **files}.items():
        (folder / f'{name}.py').write_text(text)
    return folder / f'{list(files)[-1]}.py'


#: What a child of a child assigns without using it, and what the error says to set.
WITHOUT_EFFECT = {
    "root = 'two/'": ('root', 9, 'train_dataloader.root'),
    "steps = [dict(type='LoadImage')]": ('steps', 8, 'train_dataloader.pipeline'),
    "norm = dict(type='GN')": ('norm', 7, 'model.neck.norm'),
    'norm = dict(eps=1e-3)': ('norm', 7, 'model.neck.norm'),
    'norm = dict(_delete_=True)': ('norm', 7, 'model.neck.norm'),
    'size = 5': ('size', 7, 'model.widths.0'),
    "root = 'two/'\nval_evaluator = dict(ann_file='two/val.json')": ('root', 9, 'train_dataloader.root'),
}


@pytest.mark.parametrize('safe', [False, True])
@pytest.mark.parametrize('parent', ['base', 'middle'])
@pytest.mark.parametrize('text', WITHOUT_EFFECT)
def test_an_assignment_without_effect_is_refused(tmp_path: Path, text: str, parent: str, safe: bool) -> None:
    name, line, place = WITHOUT_EFFECT[text]
    path = write(tmp_path, child=f"_base_ = './{parent}.py'\n\n{text}\n")
    message = (
        rf'child\.py:3: {name} is a variable, .* in .*base\.py:{line}, .*: nothing would change; set {place} .*here'
    )
    with pytest.raises(ConfigError, match=message):
        load_config(path, safe=safe)
    with pytest.raises(ConfigError, match=message):  # and where another file inherits from it
        load_config(write(tmp_path, grandchild="_base_ = './child.py'\nanother = 2\n"), safe=safe)


@pytest.mark.parametrize('safe', [False, True])
@pytest.mark.parametrize(
    ('text', 'place', 'expected'),
    [
        ("norm = dict(type='GN')\nmodel = dict(neck=dict(norm=norm))", 'model.neck.norm.type', 'GN'),
        ("root = 'two/'\ntrain_dataloader = dict(root=root + 'x')", 'train_dataloader.root', 'two/x'),
        ("root = 'two/'; train_dataloader = dict(root=root)", 'train_dataloader.root', 'two/'),
        ("root = 'one/'", 'train_dataloader.root', 'one/'),  # what it was
        ('norm = dict(eps=1e-5)', 'model.neck.norm.eps', 1e-5),
        ('unused = 8', 'unused', 8),
        ('mine = 8\nmodel = dict(depth=mine)', 'model.depth', 8),
        ("model = dict(neck=dict(norm=dict(type='GN')))", 'model.neck.norm.type', 'GN'),
        ("train_dataloader = dict(root='two/')", 'train_dataloader.root', 'two/'),
    ],
)
def test_a_child_may_use_its_own(tmp_path: Path, text: str, place: str, expected: object, safe: bool) -> None:
    cfg = load_config(write(tmp_path, child=f"_base_ = './middle.py'\n{text}\n"), safe=safe)
    assert cfg.get(place.split('.')[0]) is not None
    value = cfg
    for part in place.split('.'):
        value = value[part]
    assert value == expected


@pytest.mark.parametrize(
    'text',
    [
        "for root in ['two/']:\n    pass",
        "if True:\n    root = 'two/'",
        "a, root = 1, 'two/'",
        "root: str = 'two/'",
        "(root := 'two/')",
        "root = 'two/'\ndef root_of(root):\n    root = 3",
        "root = {{_base_.root}} + 'x'",
        "root = _base_.root + 'x'",
        "root = '{{_base_.root}}/x'",
        "root = 'two/'\n# train_dataloader = dict(root=root)",
        "root = 'two/'\nroot = root + 'x'",
    ],
)
def test_every_way_to_assign(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r'child\.py:\d: root is a variable'):
        load_config(write(tmp_path, child=f"_base_ = './base.py'\n{text}\n"))


def test_a_later_file_may_take_it(tmp_path: Path) -> None:
    """The file in between has no effect alone; what inherits from it uses its value."""
    between = "_base_ = './base.py'\nroot = 'two/'\n"
    later = "_base_ = './between.py'\ntrain_dataloader = dict(root={{_base_.root}})\n"
    assert load_config(write(tmp_path, between=between, later=later)).train_dataloader.root == 'two/'
    with pytest.raises(ConfigError, match=r'between\.py:2: root is a variable'):
        load_config(tmp_path / 'between.py')


def test_what_a_base_takes_from_its_own_base(tmp_path: Path) -> None:
    middle = "_base_ = './base.py'\nlog = dict(every={{_base_.unused}})\n"
    path = write(tmp_path, middle=middle, child="_base_ = './middle.py'\nunused = 8\n")
    with pytest.raises(ConfigError, match=r'child\.py:2: unused is .* in .*middle\.py:2, .*; set log\.every here'):
        load_config(path)


def test_several_bases(tmp_path: Path) -> None:
    path = write(tmp_path, second='far = 1\n', child="_base_ = ['./base.py', './second.py']\nfar = 2\nroot = 'two/'\n")
    with pytest.raises(ConfigError, match=r'child\.py:3: root is a variable'):
        load_config(path)


def test_keys_of_the_runner_are_no_variables(tmp_path: Path) -> None:
    """They hold what they say, whatever a base made of them."""
    base = 'val_dataloader = dict(batch_size=1)\ntest_dataloader = val_dataloader\n'
    cfg = load_config(write(tmp_path, two=base, child="_base_ = './two.py'\nval_dataloader = dict(batch_size=2)\n"))
    assert (cfg.val_dataloader.batch_size, cfg.test_dataloader.batch_size) == (2, 1)


@pytest.mark.parametrize('suffix', ['yaml', 'json'])
def test_configs_that_are_no_python(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, middle=MIDDLE)
    path = tmp_path / f'child.{suffix}'
    path.write_text('{"_base_": "./middle.py", "root": "two/"}')
    with pytest.raises(
        ConfigError, match=rf'child\.{suffix}:1: root is a variable, .*base\.py:9.*; set train_dataloader'
    ):
        load_config(path)
    path.write_text('{"_base_": "./middle.py", "unused": 8, "train_dataloader": {"root": "two/"}}')
    assert load_config(path).train_dataloader.root == 'two/'


NEW_STYLE = 'from mmengine.config import read_base\nwith read_base():\n    from .base import *\n'


@pytest.mark.parametrize(
    'text', ["root = 'two/'", "norm = dict(type='GN')", 'norm.update(eps=1.0)', "norm['eps'] = 1.0", 'steps.append(1)']
)
def test_new_style(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, child=f'{NEW_STYLE}{text}\n')
    with pytest.raises(ConfigError, match=r'child\.py:4: (root|norm|steps) is a variable, .*base\.py:\d, .*; set '):
        load_config(path)
    used = 'model.update(dict(neck=dict(norm=norm)))\ntrain_dataloader.update(dict(root=root, pipeline=steps))\n'
    load_config(write(tmp_path, child=f'{NEW_STYLE}{text}\n{used}'))
    load_config(write(tmp_path, child=f'{NEW_STYLE}unused = 8\nmodel.update(dict(depth=unused))\n'))
