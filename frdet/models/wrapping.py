"""A model and the wrapper it may be in, such as DistributedDataParallel."""

from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn


def bare(model: nn.Module) -> Any:
    """The model without its wrapper."""
    return model.module if is_model_wrapper(model) else model
