"""Readers of the formats that labelling tools write, each a ``DetDataset`` with a method ``read``."""

from frdet.datasets.formats.csv import CsvDataset
from frdet.datasets.formats.images import ImageFolder
from frdet.datasets.formats.voc import VocDataset
from frdet.datasets.formats.yolo import YoloDataset

__all__ = ['CsvDataset', 'ImageFolder', 'VocDataset', 'YoloDataset']
