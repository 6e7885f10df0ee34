"""Objects that an anchor fits, by hand. Samples and scores are tested in test_helping.py."""

import numpy as np
import pytest
import torch

from frdet.insight.trace.sampled import count_anchored
from frdet.structures import DetDataSample

#: xywh in an image of 50 pixels, whose input has 100: (0, 0, 20, 20), (20, 20, 60, 40) and (80, 80, 100, 100) there.
OBJECTS = np.array([[0, 0, 10, 10], [10, 10, 20, 10], [40, 40, 10, 10]], dtype=float)


@pytest.mark.parametrize('iou, fitting', [(0.99, 1), (0.5, 2), (0.51, 1)])
def test_count_anchored(iou, fitting):
    """The first object is an anchor; the second has IoU 1/2 with the anchor of the other level; the third has none."""
    sample = DetDataSample(metainfo=dict(img_shape=(100, 100), ori_shape=(50, 50)))
    levels = [torch.tensor([[0.0, 0, 20, 20], [1, 1, 3, 3]]), torch.tensor([[20.0, 20, 60, 60]])]
    assert count_anchored(OBJECTS, sample, levels, iou) == fitting


def test_count_anchored_in_a_mirrored_image():
    sample = DetDataSample(metainfo=dict(img_shape=(100, 100), ori_shape=(50, 50), flip=True))
    assert count_anchored(OBJECTS, sample, [torch.tensor([[80.0, 0, 100, 20]])], 0.9) == 1


def test_no_anchor_is_told():
    sample = DetDataSample(metainfo=dict(img_shape=(100, 100), ori_shape=(50, 50)))
    assert count_anchored(OBJECTS, sample, [], 0.5) == 0
