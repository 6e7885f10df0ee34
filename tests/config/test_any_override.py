"""Whatever is written after --cfg-options: a config that passes the check, or one worded error."""

import ast
import copy
from pathlib import Path

from hypothesis import assume, example, given
from hypothesis import strategies as st

from frdet.config import apply_overrides, check_config, load_config, parse_overrides
from frdet.config.origins import leaves
from frdet.errors import ConfigError

MAIN = Path(__file__).resolve().parents[2] / 'configs/faster_rcnn/r50_fpn_1x_cocoval.py'
BASE = load_config(MAIN)
PLACES = sorted(key for key, _ in leaves('', BASE))
PARTS = sorted({part for place in PLACES for part in place.split('.')})

literals = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.sampled_from(PARTS)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*PARTS, 'type']), inner, max_size=3),
    max_leaves=5,
)
values = st.one_of(
    literals.map(repr), st.text(max_size=12), st.sampled_from(['dict(a=', '{**{}}', '()', '1,', '__import__("os")'])
)
keys = st.one_of(
    st.sampled_from(PLACES),
    st.sampled_from(PLACES).map(lambda place: place.rpartition('.')[0] or place),
    st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=3)), min_size=1, max_size=4).map('.'.join),
)


@given(key=keys, value=values)
@example('model', '[' * 300)
@example('model.backbone.depth', '9' * 5000)
@example('model', '-' * 5000 + '1')
@example('model', 'a' + '.b' * 5000)
@example('model.backbone', 'dict(1)')
@example('model.backbone', '{[]: 1}')
@example('model.backbone', '{1: 2}')
@example('train_dataloader.dataset.pipeline.0', '3')
@example('train_dataloader.dataset.pipeline', '[[1]]')
@example('model.backbone', 'dict(type=None)')
@example('model.backbone', "dict(type='')")
@example('model.backbone', "dict(type='.')")
@example('model.backbone', "dict(type='os.path')")
@example('test_cfg.type', '')
@example('default_scope', "'..'")
@example('default_scope', '[None]')
@example('log_level', '[]')
@example('custom_imports', "dict(imports=['..'])")
def test_any_override(key, value):
    cfg = copy.deepcopy(BASE)
    try:
        apply_overrides(cfg, parse_overrides([f'{key}={value}']))
        check_config(cfg)
    except ConfigError as error:
        assert str(error)


@given(text=st.text(max_size=20))
def test_any_item(text):
    try:
        (key,) = parse_overrides([text])
    except ConfigError as error:
        assert 'expected KEY=VALUE' in str(error)
    else:
        assert text.startswith(f'{key}=')


@given(value=literals)
def test_a_literal_is_what_it_says(value):
    """Where Python itself reads the text as a value, so does an override."""
    text = repr(value)
    assume('inf' not in text and 'nan' not in text)
    parsed = parse_overrides([f'a={text}'])['a']
    assert parsed == ast.literal_eval(text) and type(parsed) is type(value)
