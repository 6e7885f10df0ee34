"""frdet: train, evaluate and explain Faster R-CNN detectors on COCO."""

__version__ = '0.1.0'
