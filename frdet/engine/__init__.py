"""Training: the Runner, loops, hooks and the optimiser. Importing this package registers all of them."""

from frdet.checkpoints.runs import load_checkpoint, with_layout
from frdet.engine import hooks
from frdet.engine.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from frdet.engine.optim import AutocastOptimWrapper, GroupedOptimWrapperConstructor, predict_in_bfloat16
from frdet.engine.runner import DetRunner

__all__ = [
    'AutocastOptimWrapper',
    'DetRunner',
    'EpochBasedTrainLoop',
    'GroupedOptimWrapperConstructor',
    'IterBasedTrainLoop',
    'hooks',
    'load_checkpoint',
    'predict_in_bfloat16',
    'with_layout',
]
