"""Weights and checkpoints of other projects: reading their files safely, and their names."""

from frdet.interop.adapting import BGR, RGB, change_input, map_coco_classes, map_coco_names
from frdet.interop.backbones import convert_backbone
from frdet.interop.checkpoints import class_names, layout_in_words, read_detector, write_detector
from frdet.interop.detectors import LAYOUTS, convert_state_dict, recognise
from frdet.interop.download import resolve
from frdet.interop.files import load_file, unwrap
from frdet.interop.fit import check_fit, load_strictly
from frdet.interop.pretrained import Pretrained

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
