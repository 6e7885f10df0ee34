"""Hooks: actions before and after the steps of training and testing."""

from frdet.checkpoints.hooks import CheckpointHook, FitCheckpointHook, PlainCheckpointHook
from frdet.engine.hooks.broken_images import BrokenImagesHook
from frdet.engine.hooks.check_setup import CheckSetupHook
from frdet.engine.hooks.draw import DrawDetectionsHook
from frdet.engine.hooks.non_finite import NonFiniteError, NonFiniteHook
from frdet.engine.hooks.progress import ProgressHook
from frdet.engine.hooks.stop import HangHook, StopHook
from frdet.engine.hooks.validation import EarlyStoppingHook, LoggerHook, ParamSchedulerHook, ValLossHook
from frdet.engine.hooks.work_folder import WorkFolderHook
from frdet.moved import moved_names

__all__ = [
    'BrokenImagesHook',
    'CheckSetupHook',
    'CheckpointHook',
    'DrawDetectionsHook',
    'EarlyStoppingHook',
    'FitCheckpointHook',
    'HangHook',
    'LoggerHook',
    'NonFiniteError',
    'NonFiniteHook',
    'PlainCheckpointHook',
    'ParamSchedulerHook',
    'ProgressHook',
    'StopHook',
    'ValLossHook',
    'WorkFolderHook',
]

__getattr__ = moved_names(__name__, {'ReportHook': 'frdet.insight'})
