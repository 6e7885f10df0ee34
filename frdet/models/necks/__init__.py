"""Necks: feature maps -> feature maps."""

from frdet.models.necks.fpn import FPN

__all__ = ['FPN']
