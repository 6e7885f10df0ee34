"""What training starts from: all that fits, and only the layers that depend on the classes anew."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from frdet.checkpoints.fit import fit_to_start
from frdet.errors import CheckpointError


class Detector(nn.Module):
    def __init__(self, classes, channels=3):
        super().__init__()
        self.neck = nn.BatchNorm2d(2)
        self.roi_head = nn.Module()
        self.roi_head.bbox_head = head = nn.Module()
        head.fc_cls, head.fc_reg = nn.Linear(channels, classes + 1), nn.Linear(channels, 4 * classes)
        head.class_layers, head.num_classes = ('fc_cls', 'fc_reg'), classes


class OneStage(nn.Module):
    """``anchors`` scores for each class, and boxes for all of them together."""

    class_layers = ('cls',)

    def __init__(self, classes, anchors=3):
        super().__init__()
        self.num_classes = classes
        self.cls, self.reg = nn.Conv2d(2, anchors * classes, 3), nn.Conv2d(2, anchors * 4, 3)


@pytest.fixture
def warnings():
    records = []
    logger = MMLogger.get_instance('fit')
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    return records


def test_what_fits_is_taken_whole(warnings):
    state = Detector(4).state_dict()
    taken = fit_to_start(Detector(4), state, 'a.pth')
    assert all(torch.equal(taken[name], value) for name, value in state.items())
    assert not warnings


def test_other_classes_start_anew(warnings):
    state, model = Detector(80).state_dict(), Detector(4)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    state['neck.weight'] = torch.tensor([5.0, 6.0])
    model.load_state_dict(fit_to_start(model, state, 'a.pth'), strict=True)
    assert model.neck.weight.tolist() == [5, 6]
    for name, value in own.items():
        assert torch.equal(model.state_dict()[name], value) == (name != 'neck.weight')
    (warning,) = warnings
    assert 'a.pth has 80 classes, the model 4' in warning
    assert 'fc_cls and roi_head.bbox_head.fc_reg start anew' in warning


@pytest.mark.parametrize(
    ('given', 'wanted', 'words'),
    [(80, 4, 'has 80 classes, the model 4: cls start anew'), (7, 1, 'has other classes: cls start anew')],
)
def test_other_classes_of_any_part(warnings, given, wanted, words):
    """Two outputs a class. Of one class they may also be one for it and one for the background: 14 is then 7 or 13."""
    model, state = OneStage(wanted, 2), OneStage(given, 2).state_dict()
    taken = fit_to_start(model, state, 'a.pth')
    assert torch.equal(taken['reg.weight'], state['reg.weight'])
    assert torch.equal(taken['cls.weight'], model.cls.weight)
    (warning,) = warnings
    assert words in warning


def test_layers_that_no_part_declares_are_refused():
    model = OneStage(4)
    model.class_layers = ()
    with pytest.raises(CheckpointError, match=r'another shape of cls\.weight'):
        fit_to_start(model, OneStage(80).state_dict(), 'a.pth')


def test_what_the_model_does_not_have_is_left_out(warnings):
    model = Detector(4)
    mask = {f'roi_head.mask_head.convs.{i}.weight': torch.ones(1) for i in range(5)}
    taken = fit_to_start(model, {**model.state_dict(), **mask}, 'a.pth')
    model.load_state_dict(taken, strict=True)
    (warning,) = warnings
    assert 'roi_head.mask_head.convs.0.weight' in warning and 'and 2 more: left out' in warning


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda state: state.pop('neck.bias'), r'lacks neck\.bias'),
        (lambda state: state.pop('roi_head.bbox_head.fc_cls.bias'), r'lacks roi_head\.bbox_head\.fc_cls\.bias'),
        (
            lambda state: state.update({'neck.bias': torch.ones(7)}),
            r'another shape of neck\.bias \(7,\) \(model: \(2,\)',
        ),
    ],
)
def test_anything_else_is_refused(change, words):
    state = Detector(4).state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=words) as info:
        fit_to_start(Detector(4), state, 'a.pth')
    assert 'does not fit Detector' in str(info.value) and len(str(info.value).splitlines()) <= 2


def test_another_width_is_not_another_class_count():
    with pytest.raises(CheckpointError, match=r'another shape of roi_head\.bbox_head\.fc_cls\.weight'):
        fit_to_start(Detector(4), Detector(4, channels=5).state_dict(), 'a.pth')


def test_counters_of_batches_may_differ(warnings):
    state = Detector(4).state_dict()
    del state['neck.num_batches_tracked']
    assert 'neck.weight' in fit_to_start(Detector(4), state, 'a.pth')
    assert not warnings
