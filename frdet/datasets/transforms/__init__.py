"""Transforms of one image between its record and the batch: callables from a dict to a dict.

They read and write these keys: ``img`` (H, W, 3) uint8 BGR, ``img_path``, ``img_id``, ``height``, ``width``,
``ori_shape`` and ``img_shape`` (height, width), ``scale_factor`` (x, y) from the original to ``img``, ``flip``,
``gt_bboxes`` (n, 4) float32 xyxy in pixels of ``img``, ``gt_labels`` (n,) int64, ``gt_crowd`` (n,) bool,
``gt_masks`` (n,) polygons or bitmaps, if the data set has ``with_masks``. Keys that begin with ``gt_`` are fields, see
``geometry.py``. Random numbers come from NumPy's global generator, which MMEngine
seeds in every worker.
"""

from frdet.datasets.transforms.geometry import (
    FIELDS,
    Field,
    RandomFlip,
    Resize,
    ResizeShortestEdge,
    move_fields,
    register_field,
)
from frdet.datasets.transforms.loading import LoadImage, read_image
from frdet.datasets.transforms.packing import FilterBoxes, PackDetInputs

__all__ = [
    'FIELDS',
    'Field',
    'FilterBoxes',
    'LoadImage',
    'PackDetInputs',
    'RandomFlip',
    'Resize',
    'ResizeShortestEdge',
    'move_fields',
    'read_image',
    'register_field',
]
