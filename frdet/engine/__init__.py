"""Training: checkpoints, the optimiser, the Runner, hooks. Importing this package registers all of them."""

from frdet.engine import hooks
from frdet.engine.checkpoint import load_checkpoint, with_layout
from frdet.engine.optim import AutocastOptimWrapper, GroupedOptimWrapperConstructor
from frdet.engine.runner import DetRunner

__all__ = [
    'AutocastOptimWrapper',
    'DetRunner',
    'GroupedOptimWrapperConstructor',
    'hooks',
    'load_checkpoint',
    'with_layout',
]
