"""Schedules that follow a figure of validation."""

from math import nan
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import ReduceOnPlateauLR

from frdet.engine.hooks import ParamSchedulerHook
from frdet.errors import ConfigError
from tests.engine import toy


def rates(figures, *, schedulers=lambda scheduler: [scheduler], **arguments):
    """The learning rate after each validation; it falls to a tenth with each that is no better than the best before."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = ReduceOnPlateauLR(
        optimizer, **{'monitor': 'coco/bbox_mAP', 'rule': 'greater', 'patience': 0, **arguments}
    )
    run = SimpleNamespace(
        param_schedulers=schedulers(scheduler), message_hub=MessageHub('schedule'), logger=MMLogger('schedule')
    )
    hook, found = ParamSchedulerHook(), []
    for figure in figures:
        hook.after_val_epoch(run, {'coco/bbox_mAP': figure})
        found.append(optimizer.param_groups[0]['lr'])
    return found


@pytest.mark.parametrize(
    ('figures', 'expected'),
    [
        ([0.5, 0.4, 0.6, 0.6], [1, 0.1, 0.1, 0.01]),
        ([0.5, -1.0, -1.0, 0.4], [1, 1, 1, 0.1]),
        ([-1.0, -1.0, 0.0, nan], [1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize('schedulers', [lambda scheduler: [scheduler], lambda scheduler: {'head': [scheduler]}])
def test_a_validation_that_measured_nothing_is_no_bad_one(figures, expected, schedulers):
    assert rates(figures, schedulers=schedulers) == pytest.approx(expected)


def test_a_figure_that_validation_does_not_give():
    with pytest.raises(ConfigError, match=r"ReduceOnPlateauLR.monitor is 'loss', which .* it gives coco/bbox_mAP"):
        rates([0.5], monitor='loss')


def test_frdet_schedules_with_its_own_hook(tmp_path):
    assert any(isinstance(hook, ParamSchedulerHook) for hook in toy.runner(tmp_path).hooks)
