"""The table of COCO weights in docs/checkpoints.md."""

import re
from pathlib import Path

import pytest
from torchvision.models import get_model_weights

from frdet.checkpoints.reading import torchvision_url
from frdet.config import check_config, load_config

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(r'^\| `(\S+://\S+)` \| ([\d., ]+) \| (.*) \|$', (ROOT / 'docs/checkpoints.md').read_text(), re.M)


def test_rows_are_found_and_in_order():
    assert len(ROWS) == 15
    assert [float(ap.split(',')[0]) for _, ap, _ in ROWS] == sorted((float(a.split(',')[0]) for _, a, _ in ROWS))[::-1]


@pytest.mark.parametrize(('address', 'ap'), [row[:2] for row in ROWS if row[0].startswith('torchvision')])
def test_torchvision_states_this_ap(address, ap):
    """The address is that of the first weights, whose numbers torchvision has beside them."""
    model = address.removeprefix('torchvision://')
    weights = next(iter(get_model_weights(model)))
    stated = weights.meta['_metrics']['COCO-val2017']
    assert ap == ', '.join(f'{stated[name]}' for name in ('box_map', 'mask_map') if name in stated)
    assert torchvision_url(model) == weights.url
    assert re.search(r'-[0-9a-f]{8}\.pth$', weights.url)  # by which a download is checked


@pytest.mark.parametrize(('address', 'configs'), [(row[0], row[2]) for row in ROWS])
def test_configs_of_the_weights(address, configs):
    options = re.findall(r'with `(\S+)`', configs)
    paths = re.findall(r'`(configs/\S+\.py)`', configs)
    for path in paths:
        if '_base_' not in path:
            check_config(load_config(ROOT / path, options))
    assert paths
    # torchvision trained the first version of each with norms that add 0 to the variance.
    first = re.fullmatch(r'torchvision://(faster|mask)rcnn_resnet50_fpn|torchvision://retinanet_resnet50_fpn', address)
    assert (options == ['model.backbone.norm.eps=0.0']) == bool(first)
