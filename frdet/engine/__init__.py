"""Training: checkpoints, the optimiser, hooks. Importing this package registers all of them."""

from frdet.engine import hooks
from frdet.engine.checkpoint import load_checkpoint
from frdet.engine.loops import EpochBasedTrainLoop, IterBasedTrainLoop
from frdet.engine.optim import AutocastOptimWrapper, GroupedOptimWrapperConstructor

__all__ = [
    'AutocastOptimWrapper',
    'EpochBasedTrainLoop',
    'GroupedOptimWrapperConstructor',
    'IterBasedTrainLoop',
    'hooks',
    'load_checkpoint',
]
