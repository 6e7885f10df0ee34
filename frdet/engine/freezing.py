"""Freezing parameters by patterns of their names, and the norms among them with their statistics."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from frdet.errors import ConfigError


def is_meant(name: str, pattern: str) -> bool:
    """Return whether a pattern matches the parameter or module ``name``, or a module that contains it.

    ``neck`` and ``neck.*`` match the whole neck; ``*.bn`` matches every module named bn inside another module.
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f'{pattern}.*')


def nearest(pattern: str, names: Iterable[str]) -> str:
    """Return words for an error that name the parameters and modules with names similar to ``pattern``."""
    parts = dict.fromkeys(name.rsplit('.', cut)[0] for name in names for cut in range(name.count('.'), -1, -1))
    near = difflib.get_close_matches(pattern.strip('.*'), parts, n=3)
    return f'did you mean {" or ".join(near)}?' if near else f'the model has {", ".join(list(parts)[:5])}, ...'


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    """Turn the gradients of parameters off; an optimiser that is built afterwards leaves them out.

    Args:
        model: a model before it is wrapped: DistributedDataParallel waits for every gradient that it expects when it
            is built.
        patterns: patterns of names, see ``is_meant``.

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
