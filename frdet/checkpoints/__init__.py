"""Checkpoints: safe reading, whole writing, strict loading, and the layouts of other projects."""

from frdet.checkpoints.adapting import BGR, RGB, change_input, map_coco_classes, map_coco_names
from frdet.checkpoints.addresses import resolve
from frdet.checkpoints.backbones import convert_backbone
from frdet.checkpoints.converting import class_names, layout_in_words, read_detector, write_detector
from frdet.checkpoints.detectors import LAYOUTS, convert_state_dict, recognise
from frdet.checkpoints.fit import check_fit, load_strictly
from frdet.checkpoints.pretrained import Pretrained
from frdet.checkpoints.reading import load_file, unwrap

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
