import math

import numpy as np
import pytest
import torch

from frdet.evaluation.defined import is_defined


@pytest.mark.parametrize(
    ('name', 'value', 'defined'),
    [
        ('coco/bbox_mAP', 0.0, True),
        ('coco/bbox_mAP', -1.0, False),
        ('coco/bbox_mAP_s', -1, False),
        ('bbox_AR@100', -1.0, False),  # without a prefix
        ('mine/val/bbox_mAP_50', np.float32(-1), False),
        ('coco/bbox_mAP', torch.tensor(-1.0), False),
        ('mine/gain', -1.0, True),  # a number like any other
        ('bbox_mAP/gain', -1.0, True),  # the prefix is not the figure
        ('val_loss', -1.0, True),
        ('val_loss', math.nan, False),
        ('coco/bbox_mAP', math.nan, False),
        ('val_loss', math.inf, False),
        ('val_loss', None, False),
    ],
)
def test_is_defined(name, value, defined):
    assert is_defined(name, value) is defined
