"""Parts of a model by the names of their parameters: which ones a pattern means, and keeping them as they are."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from frdet.errors import ConfigError


def is_meant(name: str, pattern: str) -> bool:
    """Whether a pattern means the parameter or module ``name``: itself, or a part that it lies in.

    ``neck`` and ``neck.*`` mean all of the neck; ``*.bn`` all that is called bn, wherever it is.
    """
    return fnmatchcase(name, pattern) or fnmatchcase(name, f'{pattern}.*')


def nearest(pattern: str, names: Iterable[str]) -> str:
    """For errors: parameters and parts whose names are near to a pattern that means none of them."""
    parts = dict.fromkeys(name.rsplit('.', cut)[0] for name in names for cut in range(name.count('.'), -1, -1))
    near = difflib.get_close_matches(pattern.strip('.*'), parts, n=3)
    return f'did you mean {" or ".join(near)}?' if near else f'the model has {", ".join(list(parts)[:5])}, ...'


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> None:
    """Let parameters get no gradient; an optimiser that is built afterwards does not have them.

    Args:
        model: without a wrapper, and before it gets one: DistributedDataParallel waits for every gradient that it
            expected when it was made.
        patterns: of names, see ``is_meant``.

    Raises:
        ConfigError: a pattern means no parameter, or nothing is left to train.
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
    """``freeze_parameters``, and from now on norms among them keep their statistics, also after ``model.train()``.

    Raises:
        ConfigError: see ``freeze_parameters``.
    """
    freeze_parameters(model, patterns)
    norms = []
    for name, module in model.named_modules():
        if isinstance(module, _NormBase):
            own = [f'{name}.{kind}' for kind, _ in module.named_parameters()] or [name]
            if all(any(is_meant(one, pattern) for pattern in patterns) for one in own):
                norms.append(module)
    model.register_forward_pre_hook(_InEvaluation(norms))


class _InEvaluation:
    """Before every forward pass of a model: norms of it use the statistics that they have, and change none.

    ``model.train()`` puts all modules into training mode, and is called before every epoch and after every validation.
    """

    def __init__(self, norms: Sequence[nn.Module]):
        self.norms = norms

    def __call__(self, model: nn.Module, args: Any) -> None:
        for norm in self.norms:
            norm.training = False
