from pathlib import Path

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
    lines = [line.split() for line in origin_table(cfg).splitlines()]
    assert lines == [['a.x', '=', '5', '#', 'override'], ['a.y', '=', '[2]', '#', 'c.py:1']]


def test_override_of_a_dict_marks_what_it_holds(tmp_path, monkeypatch):
    (tmp_path / 'c.py').write_text('a = dict(x=1, y=2)\nb = [dict(k=1), dict(k=2)]\n')
    monkeypatch.chdir(tmp_path)
    table = origin_table(load_config('c.py', ['a={"x": 5}', 'b.1={"k": 7}']))
    where = {line.split(' = ')[0]: line.split('# ')[1] for line in table.splitlines()}
    assert where == {'a.x': 'override', 'a.y': 'c.py:1', 'b.0.k': 'c.py:2', 'b.1.k': 'override'}


def test_annotated_assignment_and_file_that_is_no_python(tmp_path):
    (tmp_path / 'c.py').write_text('a: dict = dict(x=1)\nb: int\n')
    assert set(config_origins(tmp_path / 'c.py')) == {'a', 'a.x'}
    (tmp_path / 'c.yaml').write_text('a:\n  x: 1\n')
    assert config_origins(tmp_path / 'c.yaml') == {}


def test_what_a_value_replaces_has_no_origin(tmp_path):
    (tmp_path / 'base.py').write_text('model = dict(init=dict(type="Pretrained"), norm=dict(eps=1))\n')
    path = tmp_path / 'child.py'
    path.write_text('_base_ = "./base.py"\n\nmodel = dict(init=None)\n')
    origins = {key: (Path(origin.file).name, origin.line) for key, origin in config_origins(path).items()}
    assert origins['model.init'] == ('child.py', 3) and 'model.init.type' not in origins
    assert origins['model.norm.eps'] == ('base.py', 1)
