"""Training: checkpoints, the optimiser, hooks. Importing this package registers all of them."""

from frdet.engine import hooks
from frdet.engine.checkpoint import load_checkpoint, with_layout
from frdet.engine.optim import AutocastOptimWrapper, GroupedOptimWrapperConstructor

__all__ = ['AutocastOptimWrapper', 'GroupedOptimWrapperConstructor', 'hooks', 'load_checkpoint', 'with_layout']
