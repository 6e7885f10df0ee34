"""What a config sets to become another one, shown by configs that are written and read again."""

import pytest

from frdet.config import load_config
from frdet.config.inheriting import changes
from frdet.config.text import as_code

BASE = dict(
    model=dict(type='A', neck=dict(type='FPN', channels=(8, 16)), head=None, lr=1),
    hooks=[dict(type='X', end=3), dict(type='Y')],
    epochs=12,
)


def changed(**keys):
    """The base with other values at key paths, where __ stands for a dot."""
    wanted = {**BASE, 'model': {**BASE['model'], 'neck': {**BASE['model']['neck']}}}
    for key, value in keys.items():
        *path, last = key.split('__')
        node = wanted
        for name in path:
            node = node[name]
        node[last] = value
    return wanted


@pytest.mark.parametrize(
    ('wanted', 'expected'),
    [
        (BASE, {}),
        (changed(epochs=6), {'epochs': 6}),
        (changed(model__neck__channels=(8, 32)), {'model': {'neck': {'channels': (8, 32)}}}),
        (changed(model__neck__kind='sum'), {'model': {'neck': {'kind': 'sum'}}}),
        (changed(model__neck=dict(type='PAN')), {'model': {'neck': {'_delete_': True, 'type': 'PAN'}}}),
        (changed(model__head=dict(type='H')), {'model': {'head': {'_delete_': True, 'type': 'H'}}}),
        (changed(model__neck=None), {'model': {'neck': None}}),
        (changed(model__lr=1.0), {'model': {'lr': 1.0}}),  # a float now
        (changed(hooks=[dict(type='X', end=5), dict(type='Y')]), {'hooks': [dict(type='X', end=5), dict(type='Y')]}),
        (changed(data=dict(type='D')), {'data': dict(type='D')}),
    ],
)
def test_changes(tmp_path, wanted, expected):
    found = changes(BASE, wanted)
    assert as_code(found) == as_code(expected)
    for name, values in (('base', BASE), ('new', {'_base_': 'base.py', **found})):
        (tmp_path / f'{name}.py').write_text(''.join(f'{key} = {value!r}\n' for key, value in values.items()))
    assert as_code(load_config(tmp_path / 'new.py').to_dict()) == as_code(wanted)
