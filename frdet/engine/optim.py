"""The optimiser: parameters frozen by name, parameter groups, and mixed precision on any device."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from frdet.checkpoints.fit import warn
from frdet.errors import ConfigError, did_you_mean
from frdet.models.detectors import Detector, bare
from frdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


def is_meant(name: str, pattern: str) -> bool:
    """Return whether a pattern matches the parameter or module ``name``, or a module that contains it.

    ``neck`` and ``neck.*`` match the whole neck; ``*.bn`` matches every module named bn inside another module.
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f'{pattern}.*')


def nearest(pattern: str, names: Iterable[str]) -> str:
    """Return words for an error that name the parameters and modules with names similar to ``pattern``."""
    parts = dict.fromkeys(name.rsplit('.', cut)[0] for name in names for cut in range(name.count('.'), -1, -1))
    return did_you_mean(pattern.strip('.*'), parts) or f'the model has {", ".join(list(parts)[:5])}, ...'


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    """Turn the gradients of parameters off; an optimiser that is built afterwards leaves them out.

    ``is_meant`` explains patterns. ``model`` is not wrapped yet: DistributedDataParallel waits for every gradient that
    it expects when it is built.

    Raises:
        ConfigError: a pattern matches no parameter, or nothing is left to train.
    """
    names = dict(model.named_parameters())
    for pattern in patterns:
        found = [name for name in names if is_meant(name, pattern)]
        if not found:
            raise ConfigError(
                f'optim_wrapper.paramwise_cfg.freeze: no parameter of {type(model).__name__} is called {pattern!r}; '
                f'{nearest(pattern, names)}'
            )
        for name in found:
            names[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in names.values()):
        raise ConfigError(f'optim_wrapper.paramwise_cfg.freeze={list(patterns)} leaves nothing to train: freeze less')


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze parameters as ``freeze_parameters`` does; frozen norms keep their statistics even in training mode."""
    freeze_parameters(model, patterns)
    norms = []
    for name, module in model.named_modules():
        if isinstance(module, _NormBase):
            own = [f'{name}.{kind}' for kind, _ in module.named_parameters()] or [name]
            if all(any(is_meant(one, pattern) for pattern in patterns) for one in own):
                norms.append(module)
    # A partial function is copied with its model. ``model.train()``, called before every epoch and after every
    # validation, puts all modules into training mode.
    model.register_forward_pre_hook(partial(_keep_statistics, norms))


def _keep_statistics(norms: Sequence[nn.Module], model: nn.Module, args: Any) -> None:
    for norm in norms:
        norm.training = False


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """MMEngine's constructor, but with one group for all parameters of the same options, not a group per parameter.

    ``paramwise_cfg`` works as in MMEngine: ``norm_decay_mult=0`` exempts every norm's weight and bias from weight decay
    (detectron2's WEIGHT_DECAY_NORM 0); ``bias_lr_mult`` and ``bias_decay_mult`` hold for all other biases. Frozen
    parameters are left out; a parameter that two modules share is counted once. The parameters without own options are
    the first group, whose learning rate is logged.

    ``custom_keys`` gives parameters options by name. A key is a part of the name, or a pattern with ``*``; the longest
    key that fits is used. Unlike in MMEngine it changes only the options it names: with ``lr_mult`` alone, norms keep
    the weight decay of ``norm_decay_mult``. ``freeze`` is a list of patterns, see ``is_meant``.

    Raises:
        ConfigError: a pattern of ``freeze`` matches no parameter.
    """

    paramwise_cfg: dict[str, Any]

    def __call__(self, model: nn.Module) -> OptimWrapper:
        if patterns := self.paramwise_cfg.get('freeze'):
            freeze(bare(model), patterns)
        logger = MMLogger.get_current_instance()
        logger.addFilter(_is_no_parameter)
        try:
            wrapper = super().__call__(model)
        finally:
            logger.removeFilter(_is_no_parameter)
        # MMEngine keeps the rate from before the scaling by the batch here, and would log it beside the real rate.
        wrapper.base_param_settings = None
        for group in wrapper.optimizer.param_groups:
            count = sum(p.numel() for p in group['params'])
            shown = {key: group.get(key) for key in ('lr', 'weight_decay', 'momentum')}
            options = ', '.join(f'{key} {value:g}' for key, value in shown.items() if value is not None)
            print_log(f'Optimiser: {len(group["params"])} parameters of {count:,} values, {options}', logger='current')
        return wrapper

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any) -> None:
        """As MMEngine's; the outermost call, which ends last, joins the groups of all parameters."""
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
                warn(
                    f'optim_wrapper.paramwise_cfg.custom_keys: no parameter of {type(model).__name__} has {key!r} in '
                    f'its name, so that the key has no effect; {nearest(key, names.values())}'
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


def _is_no_parameter(record: logging.LogRecord) -> bool:
    """Return False for MMEngine's log lines about each parameter that has options or is frozen."""
    text = record.getMessage()
    return not text.startswith('paramwise_options') and 'is skipped since its requires_grad' not in text


def scale_lr(wrapper: OptimWrapper, rule: dict | None, batch: int, processes: int = 1) -> str | None:
    """Scale the learning rate by images in a step / ``base_batch_size`` (Goyal et al. 2017).

    A step has the images of all processes and, unlike in MMEngine, of all ``accumulative_counts`` iterations. ``rule``
    is ``auto_scale_lr`` of the config, ``batch`` the images that one process loads for an iteration. Returns the
    calculation for the log; None if the rule is off.
    """
    if not rule or not rule.get('enable'):
        return None
    if not (base := rule.get('base_batch_size')):
        raise ConfigError(
            'auto_scale_lr.enable=True without base_batch_size: give the images in a step that optimizer.lr is for'
        )
    count, lr = wrapper._accumulative_counts, wrapper.optimizer.defaults['lr']
    images = processes * batch * count
    for group in wrapper.optimizer.param_groups:
        group['lr'] *= images / base
    return (
        f'{lr:g} is for {base} images in a step. Here: processes {processes} x images {batch} '
        f'x accumulated {count} = {images}, so {lr:g} x {images} / {base} = {lr * images / base:g}'
    )


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Mixed precision on CPU and GPU, without loss scaling, because bfloat16 has float32's range.

    ``train.py --amp`` selects it. MMEngine's ``AmpOptimWrapper`` refuses to run on a CPU.

    Args:
        dtype: 'bfloat16', or 'float16' for hardware without bfloat16, where small gradients become 0.
        kwargs: ``optimizer``, ``clip_grad``, ``accumulative_counts`` of MMEngine's ``OptimWrapper``.
    """

    def __init__(self, *, dtype: str = 'bfloat16', **kwargs: Any):
        if dtype not in DTYPES:
            raise ConfigError(f'optim_wrapper.dtype is {dtype!r}: expected {" or ".join(DTYPES)}')
        super().__init__(**kwargs)
        self.dtype = DTYPES[dtype]
        if self.dtype == torch.bfloat16:
            warn_if_bfloat16_is_emulated()

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Return the context of a forward pass in training."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, self.dtype):
            yield


def warn_if_bfloat16_is_emulated() -> None:
    """Log a warning where PyTorch runs on a CPU that cannot compute in bfloat16: one with AVX2 and without AVX-512."""
    is_native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if not torch.cuda.is_available() and not is_native:
        warn('This CPU emulates bfloat16, which is many times slower than float32: leave --amp out here')


def predict_in_bfloat16(model: Any) -> None:
    """Let a model predict in bfloat16, except in the operations that training with ``--amp`` keeps in float32."""
    warn_if_bfloat16_is_emulated()
    if isinstance(model, Detector):
        model.predicts_in_bfloat16 = True
    else:  # a partial function can be copied and pickled with its model
        model.test_step = partial(_test_step_in_bfloat16, model)


def _test_step_in_bfloat16(model: Any, data: Any) -> Any:
    with torch.autocast(next(model.parameters()).device.type, torch.bfloat16):
        return type(model).test_step(model, data)
