"""Exporting detectors for use without frdet: ONNX and ``torch.export``."""

from frdet.apis.export.checking import Difference, check_exported
from frdet.apis.export.exporting import ExportedDetector, export_detector, export_program
from frdet.apis.exported import load_exported

__all__ = [
    'Difference',
    'ExportedDetector',
    'check_exported',
    'export_detector',
    'export_program',
    'load_exported',
]
