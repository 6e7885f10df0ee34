"""Losses. All have the form ``loss(pred, target, weight, avg_factor)``."""

from frdet.models.losses.box import BoxLoss, GIoULoss, IoULoss, L1Loss, SmoothL1Loss, box_loss
from frdet.models.losses.classification import BinaryCrossEntropyLoss, CrossEntropyLoss, FocalLoss

__all__ = [
    'BinaryCrossEntropyLoss',
    'BoxLoss',
    'CrossEntropyLoss',
    'FocalLoss',
    'GIoULoss',
    'IoULoss',
    'L1Loss',
    'SmoothL1Loss',
    'box_loss',
]
