"""Detectors: images -> losses or detections."""

from frdet.models.detectors.base import Detector, bare, class_counts, other_counts
from frdet.models.detectors.faster_rcnn import FasterRCNN
from frdet.models.detectors.single_stage import SingleStageDetector

__all__ = ['Detector', 'FasterRCNN', 'SingleStageDetector', 'bare', 'class_counts', 'other_counts']
