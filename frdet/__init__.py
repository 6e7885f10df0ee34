"""frdet: train, evaluate and explain Faster R-CNN detectors on COCO."""

__version__ = '0.1.0'

from frdet import moved  # noqa: E402, F401  former names of modules work after it
