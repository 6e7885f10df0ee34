"""COCO's 80 classes among 90 ids, and the order and scale of the input."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models._meta import _COCO_CATEGORIES

from frdet.checkpoints import BGR, RGB, change_input, map_coco_classes, map_coco_names
from frdet.errors import CheckpointError
from frdet.registry import DETECTORS
from tests.checkpoints.tiny import assert_equal, tiny
from tests.models.torchvision_twin import frdet_config

CLS, REG = 'roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg'
#: torchvision's list begins with the background.
LABELS = [label for label, name in enumerate(_COCO_CATEGORIES[1:]) if name != 'N/A']


def test_from_90_to_80():
    mapped = map_coco_classes(tiny(classes=90), 80)
    # In ``tiny`` class k has score k + 1, which is its category id, and deltas from 10 (k + 1).
    assert mapped[f'{CLS}.bias'].tolist() == [label + 1 for label in LABELS] + [99]
    assert mapped[f'{REG}.bias'].tolist() == [10 * (label + 1) + i for label in LABELS for i in range(4)]
    assert mapped[f'{CLS}.weight'].shape == (81, 1) and mapped[f'{REG}.weight'].shape == (320, 1)


def test_from_80_to_90_and_back():
    state = tiny(classes=80)
    state.update({f'{CLS}.weight': torch.randn(81, 1), f'{CLS}.bias': torch.randn(81)})
    mapped = map_coco_classes(state, 90)
    assert mapped[f'{CLS}.weight'].shape == (91, 1) and mapped[f'{REG}.weight'].shape == (360, 1)
    features = torch.randn(7, 1)
    before, after = (
        torch.softmax(torch.nn.functional.linear(features, s[f'{CLS}.weight'], s[f'{CLS}.bias']), dim=1)
        for s in (state, mapped)
    )
    torch.testing.assert_close(after[:, [*LABELS, 90]], before)
    unused = [label for label in range(90) if label not in LABELS]
    assert len(unused) == 10 and after[:, unused].max() < 1e-40
    assert mapped[f'{CLS}.bias'][unused].tolist() == [-100.0] * 10
    assert mapped[f'{CLS}.weight'][unused].eq(0).all()
    assert mapped[f'{REG}.bias'].view(90, 4)[unused].eq(0).all()
    assert_equal(map_coco_classes(mapped, 80), state)


def test_one_box_for_all_classes_stays():
    state = tiny(classes=80)
    state.update({f'{REG}.{kind}': state[f'{REG}.{kind}'][:4] for kind in ('weight', 'bias')})
    assert map_coco_classes(state, 90)[f'{REG}.bias'].tolist() == [10, 11, 12, 13]


def test_names():
    names = tuple(name for name in _COCO_CATEGORIES[1:] if name != 'N/A')
    assert map_coco_names(names, 90) == tuple(_COCO_CATEGORIES[1:])
    assert map_coco_names(_COCO_CATEGORIES[1:], 80) == names
    assert map_coco_names(names, 80) == names


def test_other_class_counts():
    assert map_coco_classes(tiny(classes=80), 80)[f'{CLS}.bias'].shape == (81,)
    for classes, count in ((20, 80), (80, 91)):
        with pytest.raises(CheckpointError, match=f'a.pth has {classes} classes'):
            map_coco_classes(tiny(classes=classes), count, 'a.pth')


def test_input_by_hand():
    state = tiny()
    state['backbone.conv1.weight'] = torch.tensor([2.0, 3.0, 5.0]).view(1, 3, 1, 1)  # of blue, green, red
    changed = change_input(state, source=BGR, target=('RGB', (10.0, 20.0, 30.0)))
    assert changed['backbone.conv1.weight'].flatten().tolist() == [50.0, 60.0, 60.0]
    back = change_input(changed, source=('RGB', (10.0, 20.0, 30.0)), target=BGR)
    assert_equal(back, state)


@pytest.mark.parametrize(('source', 'target'), [(BGR, RGB), (RGB, BGR)])
def test_a_photograph_gives_the_same(coco_root, source, target):
    """Each network behind its own preprocessor, padding included."""
    file = sorted(coco_root.val_dir.glob('*.jpg'))[0]
    pixels = np.asarray(Image.open(file).convert('RGB').resize((90, 70)))[:, :, ::-1].copy()  # padded to 96 by 96
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    features = []
    state = None
    for order, std in (source, target):
        config = frdet_config(18)
        mean = (123.675, 116.28, 103.53)
        config['data_preprocessor'].update(
            mean=mean if order == 'RGB' else mean[::-1], std=std, bgr_to_rgb=order == 'RGB'
        )
        model = DETECTORS.build(config).eval()
        if state is None:
            state = model.state_dict()
        else:
            model.load_state_dict(change_input(state, source=source, target=target), strict=True)
        with torch.no_grad():
            features.append(model.extract_features(model.data_preprocessor({'inputs': [image]})['inputs']))
    for one, other in zip(*features, strict=True):
        torch.testing.assert_close(other / one.std(), one / one.std(), rtol=0, atol=1e-4)
