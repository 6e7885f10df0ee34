"""The functions for tools and notebooks."""

from frdet.apis.detect import Detected, DetInferencer
from frdet.apis.export import check_exported, export_detector
from frdet.apis.inference import inference_detector, init_detector
from frdet.apis.own_data import new_experiment
from frdet.apis.own_data.replacing import use_data
from frdet.apis.running import run_tool
from frdet.apis.training import test_detector, train_detector

__all__ = [
    'DetInferencer',
    'Detected',
    'check_exported',
    'export_detector',
    'inference_detector',
    'init_detector',
    'new_experiment',
    'run_tool',
    'test_detector',
    'train_detector',
    'use_data',
]
