from frdet.config import config_origins, load_config, origin_table


def test_last_file_to_set_a_value_is_named(tmp_path, monkeypatch):
    (tmp_path / 'base.py').write_text(
        'inner = dict(\n    z=1,\n)\na = dict(x=1, y=inner)\nb = [dict(k=1), dict(k=2)]\n'
    )
    (tmp_path / 'child.py').write_text("_base_ = ['base.py']\n\na = dict(x=2)\n")
    monkeypatch.chdir(tmp_path)
    origins = config_origins('child.py')
    assert str(origins['a.x']) == 'child.py:3'
    assert str(origins['a.y.z']) == 'base.py:2'
    assert str(origins['b.1.k']) == 'base.py:5'


def test_deleted_values_have_no_origin(tmp_path):
    (tmp_path / 'base.py').write_text('a = dict(x=1, y=2)\n')
    (tmp_path / 'child.py').write_text("_base_ = 'base.py'\na = dict(_delete_=True, z=3)\n")
    assert set(config_origins(tmp_path / 'child.py')) == {'a', 'a.z'}


def test_table(tmp_path, monkeypatch):
    (tmp_path / 'c.py').write_text('a = dict(x=1, y=[2])\n')
    monkeypatch.chdir(tmp_path)
    cfg = load_config('c.py', ['a.x=5'])
    lines = [line.split() for line in origin_table(cfg, ['a.x']).splitlines()]
    assert lines == [['a.x', '=', '5', '#', 'override'], ['a.y', '=', '[2]', '#', 'c.py:1']]
