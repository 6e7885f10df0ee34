"""Necks: feature maps -> feature maps."""

from frdet.models.necks.fpn import FPN
from frdet.models.necks.pafpn import PAFPN

__all__ = ['FPN', 'PAFPN']
