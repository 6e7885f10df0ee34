import pytest
from mmengine.config import Config

from frdet.config import dump_config, load_config
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


def test_environment_variable_has_a_default(tmp_path, monkeypatch):
    path = write(tmp_path, 'c.py', "root = '{{$FRDET_TEST_ROOT:data/}}'\n")
    monkeypatch.delenv('FRDET_TEST_ROOT', raising=False)
    assert load_config(path).root == 'data/'
    monkeypatch.setenv('FRDET_TEST_ROOT', '/elsewhere')
    assert load_config(path).root == '/elsewhere'


def test_dump_reads_back(tmp_path):
    cfg = load_config(write(tmp_path, 'c.py', "a = dict(x=(1, 2), y=None, z=[dict(type='A', p=0.5)])\n"))
    again = write(tmp_path, 'again.py', dump_config(cfg))
    assert load_config(again).to_dict() == cfg.to_dict()


def test_overrides_may_be_strings_or_a_dict(tmp_path):
    path = write(tmp_path, 'c.py', 'a = dict(x=1)\n')
    assert load_config(path, ['a.x=2']).a.x == 2
    assert load_config(path, {'a.x': 3}).a.x == 3


def test_missing_config_names_the_nearest(tmp_path):
    write(tmp_path, 'r50_fpn.py', '')
    with pytest.raises(ConfigError, match=r'does not exist: did you mean .*r50_fpn\.py'):
        load_config(tmp_path / 'r50_fnp.py')
    with pytest.raises(ConfigError, match='nor does the folder'):
        load_config(tmp_path / 'nowhere' / 'r50_fpn.py')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a = dict(x=1\n', r'is no Python: .*line 1'),
        ("_base_ = './gone.py'\n", r'_base_ does not exist'),
        ('a = 1\nb = a + undefined\n', r'c\.py:2\): NameError'),
        ("_base_ = './dict.py'\na = 1\n", r'dict\.py:3\): ZeroDivisionError'),
    ],
)
def test_broken_config(tmp_path, text, message):
    write(tmp_path, 'dict.py', '\n\na = 3 / 0\n')
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
