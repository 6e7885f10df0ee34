"""Configs read as data: the same values as when they run, and nothing that could run."""

from pathlib import Path

import pytest
from mmengine.config import Config

from frdet.config import check_config, dump_config, load_config, read_text
from frdet.errors import ConfigError
from tests.test_configs import CONFIGS, relative


@pytest.mark.parametrize('path', CONFIGS, ids=relative)
def test_shipped_configs_are_data(path, monkeypatch):
    monkeypatch.setenv('FRDET_DATA_ROOT', '/my data/coco')
    cfg = load_config(path, safe=True)
    assert cfg.to_dict() == load_config(path).to_dict()
    check_config(cfg)


def write(folder, text, name='a.py'):
    (folder / name).write_text(text)
    return folder / name


def read(folder, text, **kwargs):
    return load_config(write(folder, text), safe=True, **kwargs).to_dict()


def test_values(tmp_path):
    text = """
'''A docstring.'''
root = 'data/'
n = 3
same = again = dict(a=1)
wide = {'a b': -1.5, **same, 'n': n}
joined = root.rstrip('/') + '/x' + f'_{n}.json'
lists = [1, 2] + [n]
pair = (1,) + (2 * n - 1, 7 // 2, 1 / 4)
flags = [True, not True, None]
"""
    assert read(tmp_path, text) == dict(
        root='data/', n=3, same=dict(a=1), again=dict(a=1), wide={'a b': -1.5, 'a': 1, 'n': 3}, joined='data/x_3.json',
        lists=[1, 2, 3], pair=(1, 5, 3, 0.25), flags=[True, False, None],
    )  # fmt: skip


def test_inherits(tmp_path):
    write(tmp_path, 'a = dict(x=1, y=dict(z=2, w=3))\nb = [1, 2]', 'one.py')
    write(tmp_path, 'c = 5', 'two.py')
    found = read(tmp_path, "_base_ = ['one.py', './two.py']\na = dict(y=dict(_delete_=True, v=4))\nb = [9]")
    assert found == dict(a=dict(x=1, y=dict(v=4)), b=[9], c=5)
    assert read(tmp_path, "_base_ = 'two.py'", overrides=['c=6']) == dict(c=6)


def test_environment(tmp_path, monkeypatch):
    """What is filled in stays a string, whatever is in it."""
    monkeypatch.setenv('WHERE', "'+__import__('os').getcwd()+'")
    found = read(tmp_path, "a = '{{$WHERE:x}}/y'\nb = '{{ $ABSENT_ONE : z }}'")
    assert found == dict(a="'+__import__('os').getcwd()+'/y", b='z')


@pytest.mark.parametrize(
    'line',
    [
        'import os',
        "__import__('os').mkdir('SPRUNG')",
        "x = __import__('os').mkdir('SPRUNG')",
        "x = open('SPRUNG', 'w')",
        "x = [c for c in ().__class__.__base__.__subclasses__()]",
        "x = (lambda: 1)()",
        "def f(): pass",
        "class A: pass",
        "x = f'{open}'",
        "x = f'{1:{2}}'",
        "x = '{0.__class__}'.format(1)",
        "x = dict([(1, 2)])",
        "x = absent",
        "x = 9 ** 9",
        "x = 'a' * 3",
        "x = ''.__class__",
        "x = [1][0]",
        "x = 1 if True else 2",
        "x, y = 1, 2",
        "x = y = z.w = 1",
        "x = {1, 2}",
        "x = b'a'",
        "x = '{{ fileDirname }}'",
        "if True:\n    x = 1",
        "for x in [1]: pass",
        "dict = 3\nx = dict(a=1)",
    ],
)  # fmt: skip
def test_more_than_data_is_refused(tmp_path, line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r'a\.py:[23]: found ') as info:
        read(tmp_path, f'a = 1\n{line}')
    assert len(str(info.value).splitlines()) == 1
    assert not Path('SPRUNG').exists()


def test_a_base_is_held_to_the_same(tmp_path):
    write(tmp_path, 'x = print(1)', 'base.py')
    with pytest.raises(ConfigError, match=r'base\.py:1'):
        read(tmp_path, "_base_ = 'base.py'")
    with pytest.raises(ConfigError, match='inherits from itself'):
        read(tmp_path, "_base_ = 'a.py'")
    with pytest.raises(ConfigError, match='No such file'):
        read(tmp_path, "_base_ = 'none.py'")
    with pytest.raises(ConfigError, match='_base_ is 3'):
        read(tmp_path, '_base_ = 3')
    write(tmp_path, 'y = 1', 'base.py')
    write(tmp_path, 'y = 2', 'other.py')
    with pytest.raises(ConfigError, match='several .* set y'):
        read(tmp_path, "_base_ = ['base.py', 'other.py']")


@pytest.mark.parametrize(
    'text',
    [
        "custom_imports = dict(imports=['trap'])",
        "default_scope = 'trap'",
        "custom_hooks = [dict(type='trap')]",
        "custom_hooks = [dict(type='trap.Hook')]",
        "custom_hooks = [dict(type='os.mkdir', path='SPRUNG')]",
        "model = dict(type='FasterRCNN', _scope_='trap')",
        "optim_wrapper = dict(constructor='trap.X')",
    ],
)
def test_nothing_is_imported(tmp_path, text, monkeypatch):
    """MMEngine imports the module that the name of a class begins with; one may lie beside the config."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'trap').mkdir()
    for name in ('__init__', 'registry'):
        write(tmp_path / 'trap', f"open({str(tmp_path / 'sprung')!r}, 'w').close()", f'{name}.py')
    with pytest.raises(ConfigError, match='safe-config|read as data imports no'):
        read(tmp_path, text)
    assert not (tmp_path / 'sprung').exists()


def test_overrides_are_held_to_it_too(tmp_path):
    path = write(tmp_path, 'custom_hooks = []')
    with pytest.raises(ConfigError, match='trap.Hook'):
        load_config(path, {'custom_hooks': [dict(type='trap.Hook')]}, safe=True)


def test_the_text_of_a_config_reads_as_data(monkeypatch):
    """As in a checkpoint. What looks like an environment variable stays as it is."""
    monkeypatch.setenv('SECRET', 'leaked')
    values = dict(
        a=dict(type='ResizeShortestEdge', short_side=(1, 2), factor=-0.5),
        b=[float('inf'), -float('inf'), None, True, "it's {{$SECRET:}}"],
        c={'a b': (1,), 2: []},
    )
    assert read_text(dump_config(Config(values)), 'its config').to_dict() == values
    (nan,) = read_text("a = [float('nan')]", 'its config').a
    assert nan != nan
    for text in ("a = float('1' * 9)", 'a = float(open)', "def float(x): pass\na = float('inf')"):
        with pytest.raises(ConfigError, match=r'its config:1: found'):
            read_text(text, 'its config')
    with pytest.raises(ConfigError, match='2000000 characters, expected at most 1048576'):
        read_text(' ' * 2_000_000, 'its config')
