"""Detectors and their parts. Importing this package registers every component of frdet.

Start reading at ``detectors/faster_rcnn.py``.
"""

from frdet.models import backbones, dense_heads, detectors, layers, losses, necks, preprocessor, roi_heads, task_modules

__all__ = [
    'backbones',
    'dense_heads',
    'detectors',
    'layers',
    'losses',
    'necks',
    'preprocessor',
    'roi_heads',
    'task_modules',
]
