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

from frdet.engine.freezing import freeze, is_meant, nearest
from frdet.errors import ConfigError
from frdet.models.detectors import Detector
from frdet.models.wrapping import bare
from frdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor with one group for all parameters of the same options, instead of one for each parameter.

    The rules are those of ``paramwise_cfg``: ``norm_decay_mult=0`` exempts every norm's weight and bias from weight
    decay (detectron2's WEIGHT_DECAY_NORM 0), ``bias_lr_mult`` and ``bias_decay_mult`` hold for other biases, which are
    treated as weights without them. What is frozen is left out; a parameter that two modules share is counted once.
    Parameters without options of their own come first: theirs is the logged rate.

    ``custom_keys`` gives parameters options by name. A key is a part of the name, or a pattern with ``*``; the longest
    that fits holds. Unlike in MMEngine it changes what it names alone: with ``lr_mult`` alone, norms keep the weight
    decay of ``norm_decay_mult``. ``freeze`` is a list of patterns, see ``frdet.engine.freezing``.

    Raises:
        ConfigError: a pattern of ``freeze`` means no parameter.
    """

    paramwise_cfg: dict[str, Any]

    def __call__(self, model: nn.Module) -> OptimWrapper:
        if patterns := self.paramwise_cfg.get('freeze'):
            freeze(bare(model), patterns)
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
        custom_keys = self.paramwise_cfg.get('custom_keys') or {}
        if not prefix:
            self.paramwise_cfg = {**self.paramwise_cfg, 'custom_keys': {}}
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:
            return
        self.paramwise_cfg['custom_keys'] = custom_keys
        self._add_custom(params, module, custom_keys)
        groups: dict[tuple, dict] = {(): {'params': []}}
        seen: set[int] = set()
        for group in params:
            options = tuple(sorted((key, value) for key, value in group.items() if key != 'params'))
            fresh = [p for p in group['params'] if id(p) not in seen]
            seen.update(map(id, fresh))
            groups.setdefault(options, {'params': [], **dict(options)})['params'] += fresh
        params[:] = [group for group in groups.values() if group['params']]

    def _add_custom(self, params: list[dict], model: nn.Module, custom_keys: dict[str, dict]) -> None:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for key in custom_keys:
            if not any(_fits(name, key) for name in names.values()):
                print_log(
                    f'optim_wrapper.paramwise_cfg.custom_keys: no parameter of {type(model).__name__} has {key!r} in '
                    f'its name, so that the key has no effect; {nearest(key, names.values())}',
                    logger='current',
                    level=logging.WARNING,
                )
        longest_first = sorted(sorted(custom_keys), key=len, reverse=True)
        for group in params:
            name = names[id(group['params'][0])]
            options = next((custom_keys[key] for key in longest_first if _fits(name, key)), {})
            if 'lr_mult' in options:
                group['lr'] = self.base_lr * options['lr_mult']
            if 'decay_mult' in options:
                group['weight_decay'] = self.base_wd * options['decay_mult']
            group.update(options)


def _fits(name: str, key: str) -> bool:
    return is_meant(name, key) if '*' in key else key in name


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
