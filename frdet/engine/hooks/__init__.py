"""Hooks: what happens around a training or test step."""

from frdet.engine.hooks.check_setup import CheckSetupHook
from frdet.engine.hooks.checkpoint import FitCheckpointHook, PlainCheckpointHook, StartFromCheckpointHook
from frdet.engine.hooks.draw import DrawDetectionsHook
from frdet.engine.hooks.hang import HangHook
from frdet.engine.hooks.non_finite import NonFiniteError, NonFiniteHook
from frdet.engine.hooks.progress import EvalProgressHook

__all__ = [
    'CheckSetupHook',
    'DrawDetectionsHook',
    'EvalProgressHook',
    'FitCheckpointHook',
    'HangHook',
    'NonFiniteError',
    'NonFiniteHook',
    'PlainCheckpointHook',
    'StartFromCheckpointHook',
]
