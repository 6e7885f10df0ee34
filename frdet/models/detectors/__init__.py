"""Detectors: images -> losses or detections."""

from frdet.models.detectors.base import Detector, bare, class_counts, mask_head_of, other_counts
from frdet.models.detectors.faster_rcnn import FasterRCNN
from frdet.models.detectors.single_stage import SingleStageDetector

__all__ = ['Detector', 'FasterRCNN', 'SingleStageDetector', 'bare', 'class_counts', 'mask_head_of', 'other_counts']
