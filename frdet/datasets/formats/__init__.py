"""Readers of the formats that labelling tools write, each a ``DetDataset`` with a method ``read``."""

from frdet.datasets.formats.images import ImageFolder
from frdet.datasets.formats.voc import VocDataset

__all__ = ['ImageFolder', 'VocDataset']
