"""Figures in the documentation are the code's."""

from pathlib import Path

from frdet.config import load_config
from frdet.registry import DETECTORS

ROOT = Path(__file__).resolve().parents[1]


def test_scaling_counts_the_reference_models_parameters():
    page = (ROOT / 'docs/scaling.md').read_text()
    model = DETECTORS.build(load_config(ROOT / 'configs/faster_rcnn/r50_fpn_1x_coco.py').model)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f'trains {trained:,} parameters ({total:,} less the frozen stem and layer1)' in page
    assert f'= {4 * trained / 1e6:.1f}' in page
