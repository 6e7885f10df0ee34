"""Detectors: images -> losses or detections."""

from frdet.models.detectors.base import Detector, bare, class_counts, other_counts
from frdet.models.detectors.faster_rcnn import FasterRCNN

__all__ = ['Detector', 'FasterRCNN', 'bare', 'class_counts', 'other_counts']
