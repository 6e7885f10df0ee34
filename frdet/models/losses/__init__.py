"""Losses. All have the form ``loss(pred, target, weight, avg_factor)``."""

from frdet.models.losses.focal import FocalLoss
from frdet.models.losses.losses import (
    BinaryCrossEntropyLoss,
    CIoULoss,
    CrossEntropyLoss,
    DIoULoss,
    GIoULoss,
    IoULoss,
    L1Loss,
    Loss,
    SmoothL1Loss,
    box_loss,
)
from frdet.moved import moved_names

__getattr__ = moved_names(__name__, {'BoxLoss': 'frdet.models.losses:Loss'})

__all__ = [
    'BinaryCrossEntropyLoss',
    'CIoULoss',
    'CrossEntropyLoss',
    'DIoULoss',
    'FocalLoss',
    'GIoULoss',
    'IoULoss',
    'L1Loss',
    'Loss',
    'SmoothL1Loss',
    'box_loss',
]
