"""Detectors: images -> losses or detections."""

from frdet.models.detectors.faster_rcnn import FasterRCNN

__all__ = ['FasterRCNN']
