"""Figures in the documentation are the code's."""

import re
from pathlib import Path

import pytest

from frdet.config import load_config
from frdet.errors import ConfigError
from frdet.registry import DETECTORS

ROOT = Path(__file__).resolve().parents[1]


def test_scaling_counts_the_reference_models_parameters():
    page = (ROOT / 'docs/scaling.md').read_text()
    model = DETECTORS.build(load_config(ROOT / 'configs/faster_rcnn/r50_fpn_1x_coco.py').model)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f'trains {trained:,} parameters ({total:,} less the frozen stem and layer1)' in page
    assert f'= {4 * trained / 1e6:.1f}' in page


THEIRS = {'model.roi_head.bbox_roi_extractor'}  # MMDetection's
KEY = (
    r'(?:model|(?:train|val|test)_(?:dataloader|cfg)|optim_wrapper|param_scheduler|auto_scale_lr|default_hooks'
    r'|env_cfg|randomness|visualizer)\.[\w.]+'
)


def keys(page: Path) -> set[tuple[str, str]]:
    """Config keys that stand by themselves between backticks, with the value where they have one, or ''."""
    found = re.findall(rf'`"?({KEY})(?:=([^`"]*)"?)?`', page.read_text())
    return {(key, value) for key, value in found if key not in THEIRS}


@pytest.mark.parametrize(
    'page', sorted({*(ROOT / 'docs').glob('*.md')} - {ROOT / 'docs/peers.md'}), ids=lambda page: page.stem
)
def test_config_keys_exist(page):
    """In the 1x config, or, where a loop counts iterations, in that one; peers.md has a test of its own."""
    for key, value in keys(page):
        refusals = [
            refusal(f'configs/faster_rcnn/{name}.py', key, value) for name in ('r50_fpn_1x_cocoval', 'r50_fpn_90k_coco')
        ]
        if all(refusals):
            pytest.fail(f'{page.name}: {refusals[0]}')


def refusal(config: str, key: str, value: str = '') -> str | None:
    """Why an override of ``key`` would be refused, unless it is because of its value."""
    try:
        load_config(ROOT / config, [f'{key}={value or None}'])
    except ConfigError as error:
        return None if 'expected' in str(error) else str(error)
    return None


def test_a_key_that_does_not_exist_is_found():
    assert 'dept' in refusal('configs/faster_rcnn/r50_fpn_1x_cocoval.py', 'model.backbone.dept')
    assert 'optim_wrapper.accumulative_counts' in dict(keys(ROOT / 'docs/scaling.md'))
    assert dict(keys(ROOT / 'docs/configs.md'))['default_hooks.ema'] == 'dict(type=EMAHook)'
