"""Weights and checkpoints of other projects: reading their files safely, and their names."""

from frdet.interop.backbones import convert_backbone
from frdet.interop.download import resolve
from frdet.interop.files import load_file, unwrap
from frdet.interop.pretrained import Pretrained, check_fit, load_strictly

__all__ = ['Pretrained', 'check_fit', 'convert_backbone', 'load_file', 'load_strictly', 'resolve', 'unwrap']
