"""Data sets, transforms and samplers. Importing this package registers all of them."""

from frdet.datasets import transforms
from frdet.datasets.annotations import Annotations, image_size
from frdet.datasets.base import DetDataset
from frdet.datasets.coco import CocoDataset
from frdet.datasets.formats import CsvDataset, ImageFolder, VocDataset, YoloDataset
from frdet.datasets.loaders import AspectRatioBatchSampler, resolve_workers
from frdet.datasets.shapes import ShapesDataset, write_shapes
from frdet.datasets.wrappers import ConcatDataset
from frdet.moved import moved_names

__all__ = [
    'Annotations',
    'AspectRatioBatchSampler',
    'CocoDataset',
    'ConcatDataset',
    'CsvDataset',
    'DetDataset',
    'ImageFolder',
    'ShapesDataset',
    'VocDataset',
    'YoloDataset',
    'image_size',
    'resolve_workers',
    'transforms',
    'write_shapes',
]

__getattr__ = moved_names(__name__, {'settle_workers': 'frdet.datasets.loaders:resolve_workers'})
