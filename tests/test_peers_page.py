"""docs/peers.md says what the configs of configs/interop do."""

import re
from pathlib import Path
from typing import Any

import pytest

from frdet.config import load_config

ROOT = Path(__file__).resolve().parents[1]
PEERS = ('detectron2', 'torchvision', 'mmdet')


def rows():
    for line in (ROOT / 'docs/peers.md').read_text().splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if len(cells) == 5 and cells[1].startswith('`'):
            yield cells[1].strip('`'), [cell.strip('`') for cell in cells[2:]]


def look_up(cfg: Any, key: str) -> Any:
    """Value at a dotted key; ``name[Type]`` is the item of that type in a list. None if it is not there."""
    for part in key.split('.'):
        name, kind = re.fullmatch(r'(\w+)(?:\[(\w+)\])?', part).groups()
        cfg = (cfg or {}).get(name)
        if kind is not None:
            (cfg,) = (item for item in cfg if item['type'] == kind)
    return cfg


ROWS = dict(rows())


def test_the_table_is_read():
    assert len(ROWS) > 30


@pytest.mark.parametrize('place', range(3), ids=PEERS)
def test_values_of_the_table(place):
    cfg = load_config(ROOT / f'configs/interop/{PEERS[place]}_r50_fpn.py')
    for key, cells in ROWS.items():
        expected = eval(cells[place]) if cells[place] else None
        found = look_up(cfg, key)
        if isinstance(expected, (float, tuple, list)):
            assert found == pytest.approx(expected), key
        else:
            assert found == expected and type(found) is type(expected), key


def test_every_difference_of_the_models_is_in_the_table():
    """What two of the three model configs set differently, the pretrained weights and classes' names apart."""
    models = [flat(load_config(ROOT / f'configs/interop/{name}_r50_fpn.py').model, 'model') for name in PEERS]
    different = {key for one in models for key in one if len({repr(other.get(key)) for other in models}) > 1}
    known = {*ROWS, 'model.backbone.init_cfg.checkpoint', 'model.backbone.norm.eps'}
    same = {key for key in ROWS if key.startswith('model.') and key not in different}
    assert different <= known
    assert not same, 'rows without a difference'


def flat(value: Any, place: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for name, item in value.items() for k, v in flat(item, f'{place}.{name}').items()}
    return {place: value}
