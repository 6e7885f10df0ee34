"""The optimiser: parameter groups, and mixed precision on any device."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from frdet.errors import ConfigError
from frdet.models.detectors import Detector
from frdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor with one group for all parameters of the same options, instead of one for each parameter.

    The rules are those of ``paramwise_cfg``: ``norm_decay_mult=0`` exempts every norm's weight and bias from weight
    decay (detectron2's WEIGHT_DECAY_NORM 0), ``bias_lr_mult`` and ``bias_decay_mult`` hold for other biases, which are
    treated as weights without them; ``custom_keys`` for parameters by name. What is frozen is left out; a parameter
    that two modules share is counted once. Parameters without options of their own come first: theirs is the logged
    rate.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        with _without_a_line_per_parameter():
            wrapper = super().__call__(model)
        # MMEngine keeps the rate before it is scaled by the batch here, and would log that one beside the real one.
        wrapper.base_param_settings = None
        for group in wrapper.optimizer.param_groups:
            count = sum(p.numel() for p in group['params'])
            shown = {key: group.get(key) for key in ('lr', 'weight_decay', 'momentum')}
            options = ', '.join(f'{key} {value:g}' for key, value in shown.items() if value is not None)
            print_log(f'Optimiser: {len(group["params"])} parameters of {count:,} values, {options}', logger='current')
        return wrapper

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any) -> None:
        """As MMEngine's; the outermost call, which ends when every parameter is there, joins the groups."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:
            return
        groups: dict[tuple, dict] = {(): {'params': []}}
        seen: set[int] = set()
        for group in params:
            options = tuple(sorted((key, value) for key, value in group.items() if key != 'params'))
            fresh = [p for p in group['params'] if id(p) not in seen]
            seen.update(map(id, fresh))
            groups.setdefault(options, {'params': [], **dict(options)})['params'] += fresh
        params[:] = [group for group in groups.values() if group['params']]


@contextmanager
def _without_a_line_per_parameter() -> Iterator[None]:
    """MMEngine logs each parameter that has options or is frozen."""

    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not text.startswith('paramwise_options') and 'is skipped since its requires_grad' not in text

    logger = MMLogger.get_current_instance()
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Mixed precision without loss scaling, on CPU and GPU: bfloat16 has float32's range.

    ``train.py --amp`` chooses it. MMEngine's ``AmpOptimWrapper`` refuses to run on a CPU.

    Args:
        dtype: 'bfloat16', or 'float16' for hardware without it; small gradients then become 0.
        kwargs: ``optimizer``, ``clip_grad``, ``accumulative_counts`` of MMEngine's ``OptimWrapper``.
    """

    def __init__(self, *, dtype: str = 'bfloat16', **kwargs: Any):
        if dtype not in DTYPES:
            raise ConfigError(f'optim_wrapper.dtype is {dtype!r}: expected {" or ".join(DTYPES)}')
        super().__init__(**kwargs)
        self.dtype = DTYPES[dtype]

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a forward pass in training."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, self.dtype):
            yield


def predict_in_bfloat16(model: Any) -> None:
    """Let a model predict in bfloat16 where it is safe, as training under ``--amp``."""
    if isinstance(model, Detector):
        model.predicts_in_bfloat16 = True
    else:  # a function bound by partial is copied and pickled with its model
        model.test_step = partial(_test_step_in_bfloat16, model)


def _test_step_in_bfloat16(model: Any, data: Any) -> Any:
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
        return type(model).test_step(model, data)
