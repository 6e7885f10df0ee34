"""Checkpoints: safe reading, whole writing, strict loading, and the layouts of other projects."""

from frdet.checkpoints.backbones import convert_backbone
from frdet.checkpoints.converting import (
    BGR,
    RGB,
    change_input,
    map_coco_names,
    read_detector,
    write_detector,
)
from frdet.checkpoints.detectors import convert_state_dict, recognise
from frdet.checkpoints.families import LAYOUTS
from frdet.checkpoints.fit import Pretrained, load_strictly
from frdet.checkpoints.reading import load_file, resolve, unwrap
from frdet.checkpoints.rows import map_coco_classes

__all__ = [
    'BGR',
    'LAYOUTS',
    'RGB',
    'Pretrained',
    'change_input',
    'convert_backbone',
    'convert_state_dict',
    'load_file',
    'load_strictly',
    'map_coco_classes',
    'map_coco_names',
    'read_detector',
    'recognise',
    'resolve',
    'unwrap',
    'write_detector',
]
