"""Metrics. Importing this package registers them."""

from frdet.evaluation.coco_metric import CocoMetric

__all__ = ['CocoMetric']
