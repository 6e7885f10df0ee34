"""Checkpoints: safe reading, whole writing, strict loading, and the layouts of other projects."""

from frdet.checkpoints.backbones import convert_backbone
from frdet.checkpoints.converting import (
    BGR,
    RGB,
    change_input,
    class_names,
    layout_in_words,
    map_coco_classes,
    map_coco_names,
    read_detector,
    write_detector,
)
from frdet.checkpoints.detectors import LAYOUTS, convert_state_dict, recognise
from frdet.checkpoints.fit import Pretrained, check_fit, load_strictly
from frdet.checkpoints.reading import load_file, resolve, unwrap

__all__ = [
    'BGR',
    'LAYOUTS',
    'RGB',
    'Pretrained',
    'change_input',
    'check_fit',
    'class_names',
    'convert_backbone',
    'convert_state_dict',
    'layout_in_words',
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
