import pytest
from mmengine.config import Config

from frdet.config import load_config
from frdet.errors import ConfigError


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def test_inheritance_merges_and_deletes(tmp_path):
    write(tmp_path, 'base.py', 'a = dict(x=1, y=dict(z=2, w=3))\nb = [1, 2]\n')
    child = write(tmp_path, 'child.py', "_base_ = './base.py'\na = dict(x=5, y=dict(_delete_=True, v=4))\nb = [3]\n")
    cfg = load_config(child)
    assert cfg.a == dict(x=5, y=dict(v=4))
    assert cfg.b == [3]


def test_environment_variable_has_a_default(tmp_path, monkeypatch, capsys):
    path = write(tmp_path, 'c.py', "root = '{{$FRDET_TEST_ROOT:data/}}'\n")
    monkeypatch.delenv('FRDET_TEST_ROOT', raising=False)
    assert load_config(path).root == 'data/'
    monkeypatch.setenv('FRDET_TEST_ROOT', '/elsewhere')
    assert load_config(path).root == '/elsewhere'
    assert capsys.readouterr().out == ''  # what a tool prints is its own


def test_environment_variable_without_default(tmp_path):
    path = write(tmp_path, 'c.py', "a = 1\nroot = dict(x=['{{$FRDET_TEST_ROOT}}'])\n")
    with pytest.raises(ConfigError, match=r'c\.py:2: root\.x\.0 names an environment variable without a default'):
        load_config(path)


def test_config_may_import(tmp_path):
    """MMEngine takes some configs that import a module for another kind of config, and fails."""
    path = write(
        tmp_path, 'c.py', 'import os\nimport numpy as np\na = os.path.join("x", "y")\nb = int(np.ones(2).sum())\n'
    )
    cfg = load_config(path)
    assert (cfg.a, cfg.b) == ('x/y', 2)
    assert cfg.filename == str(path)


def test_yaml_is_read(tmp_path):
    assert load_config(write(tmp_path, 'c.yaml', 'a:\n  x: [1, 2]\n'), ['a.x.0=5']).a.x == [5, 2]


def test_overrides_may_be_strings_or_a_dict(tmp_path):
    path = write(tmp_path, 'c.py', 'a = dict(x=1)\n')
    assert load_config(path, ['a.x=2']).a.x == 2
    assert load_config(path, {'a.x': 3}).a.x == 3


def test_missing_config_names_the_nearest(tmp_path):
    write(tmp_path, 'r50_fpn.py', '')
    with pytest.raises(ConfigError, match=r'does not exist: did you mean .*r50_fpn\.py'):
        load_config(tmp_path / 'r50_fnp.py')
    with pytest.raises(ConfigError, match='there is no folder'):
        load_config(tmp_path / 'nowhere' / 'r50_fpn.py')
    with pytest.raises(ConfigError, match=r'is a folder: expected a file in it, as r50_fpn\.py'):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('b = 1\na = dict(x=1\n', r'/c\.py:2 is no Python: '),
        ("_base_ = './open.py'\n", r'/open\.py:1 is no Python: '),
        ('import sys\nsys.exit(3)\n', r'c\.py:2\): SystemExit'),
        ("import os\na = os.environ['FRDET_TEST_UNSET']\n", r'c\.py:2\): KeyError'),
        ('def f():\n    return 1 / 0\na = f()\n', r'c\.py:3\): ZeroDivisionError'),
        ("\n_base_ = './opn.py'\n", r'c\.py:2: _base_: Config .*opn\.py does not exist: did you mean .*/open\.py'),
        ("_base_ = './c.py'\n", r'c\.py:1: _base_ is a circle, .*c\.py <- .*c\.py: no config can'),
        ("_base_ = './round.py'\n", r'round\.py:1: _base_ is a circle, .*c\.py <- .*round\.py <- .*c\.py'),
        ("_base_ = ['./whole.py', 3]\n", r"c\.py:1: _base_ is \['./whole.py', 3\], expected the path"),
        ("_base_ = './whole.py'\nc = {{_base_.lst}}\n", r"names 'lst', a key that no file in _base_ has"),
        (
            "_base_ = './whole.py'\nd = dict(\n    items=dict(x=1))\n",
            r'd\.items \(.*c\.py:3\): found a dict, the base has a li',
        ),
        ('a = 1\nb = a + undefined\n', r'c\.py:2\): NameError'),
        ("_base_ = './dict.py'\na = 1\n", r'dict\.py:3\): ZeroDivisionError'),
    ],
)
def test_broken_config(tmp_path, text, message):
    write(tmp_path, 'dict.py', '\n\na = 3 / 0\n')
    write(tmp_path, 'open.py', 'a = (\n')
    write(tmp_path, 'round.py', "_base_ = './c.py'\n")
    write(tmp_path, 'whole.py', 'd = dict(items=[1])\n')
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, 'c.py', text))


def test_custom_imports(tmp_path, monkeypatch):
    write(tmp_path, 'frdet_test_plugin.py', 'LOADED = True\n')
    path = write(tmp_path, 'c.py', "custom_imports = dict(imports=['frdet_test_plugin'])\n")
    with pytest.raises(
        ConfigError, match="'frdet_test_plugin', which cannot be imported: its folder must be on PYTHONPATH"
    ):
        load_config(path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(load_config(path), Config)


def test_custom_import_that_lacks_a_package(tmp_path, monkeypatch):
    write(tmp_path, 'frdet_test_needy.py', 'import frdet_no_such_package\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path, 'c.py', "custom_imports = dict(imports='frdet_test_needy')\n")
    with pytest.raises(ConfigError, match='it imports frdet_no_such_package'):
        load_config(path)


@pytest.mark.parametrize(
    ('module', 'message'),
    [
        ('x = 1\ny = x / 0\n', r'frdet_test_bad\.py:2\): ZeroDivisionError'),
        ('x = (\n', r"frdet_test_bad\.py:1\): '\(' was never closed"),
        ('from os import frdet_nothing\n', r'frdet_test_bad\.py:1\): ImportError'),
    ],
)
def test_custom_import_that_does_not_run(tmp_path, monkeypatch, module, message):
    write(tmp_path, 'frdet_test_bad.py', module)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path, 'c.py', "custom_imports = dict(imports=['frdet_test_bad'])\n")
    with pytest.raises(ConfigError, match=f"c.py: custom_imports names the module 'frdet_test_bad'.*{message}"):
        load_config(path)


@pytest.mark.parametrize('text', ['3', "['a']", 'dict(imports=3)', 'dict(imports=[3])'])
def test_custom_imports_of_a_wrong_form(tmp_path, text):
    with pytest.raises(ConfigError, match=r"expected dict\(imports=\['my_module'\]\)"):
        load_config(write(tmp_path, 'c.py', f'custom_imports = {text}\n'))


def test_failed_import_may_be_allowed(tmp_path):
    text = "custom_imports = dict(imports=['frdet_no_such_module'], allow_failed_imports=True)\n"
    assert load_config(write(tmp_path, 'c.py', text)).custom_imports.allow_failed_imports


def test_override_may_name_a_class_that_another_override_imports(tmp_path, monkeypatch):
    write(
        tmp_path,
        'frdet_test_necks.py',
        'from frdet.registry import NECKS\n'
        '@NECKS.register_module(force=True)\n'
        'class LoadingTestNeck:\n'
        '    def __init__(self, *, width=3):\n'
        '        pass\n',
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(tmp_path, 'c.py', 'model = dict(neck=None)\n')
    overrides = ['model.neck.width=5', 'model.neck.type=LoadingTestNeck', 'custom_imports.imports=[frdet_test_necks]']
    assert load_config(path, overrides).model.neck == dict(type='LoadingTestNeck', width=5)


def test_override_of_a_variable_that_was_used_already(tmp_path):
    """The file has run: ``b.root`` would stay what it is."""
    text = "root = 'data/x'\nb = dict(root=root)\nfree = 3\n"
    path = write(tmp_path, 'c.py', f"_base_ = '{write(tmp_path, 'base.py', text)}'\n")
    with pytest.raises(
        ConfigError, match=r'Override root: root is a variable .*: nothing would change; override b\.root'
    ):
        load_config(path, ['root=data/y'])
    assert load_config(path, ['free=4']).free == 4  # code may read it
    path = write(tmp_path, 'd.py', "_base_ = './base.py'\nc = dict(v={{_base_.free}})\n")
    with pytest.raises(ConfigError, match=r'Override free: .*override c\.v'):
        load_config(path, ['free=4'])
