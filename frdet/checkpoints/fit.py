"""Whether weights fit a model, which MMEngine leaves to a warning."""

import logging

from mmengine.logging import print_log
from torch import Tensor, nn

from frdet.checkpoints.detectors import FC_CLS, FC_REG
from frdet.errors import CheckpointError

_COUNTER = 'num_batches_tracked'
_ADVICE = "Give the checkpoint of this config's model, or change the model to fit: depth, norm, number of classes"


def check_fit(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Compare names and shapes of ``state`` with the module's; BatchNorm's counters of batches may differ.

    Args:
        module: the model, or a part of one.
        state: its parameters to be.
        source: the file, and the layout recognised in it, for errors.

    Raises:
        CheckpointError: something is missing, left over or of another shape; the first few are named.
    """
    own = module.state_dict()
    _refuse(module, source, _missing(own, state), _left_over(own, state), _misshapen(own, state))


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load ``state`` into ``module``, if it passes ``check_fit``."""
    check_fit(module, state, source)
    # Counters of batches are all that may be missing.
    module.load_state_dict(state, strict=False)


def fit_to_start(module: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """What training starts from: ``state`` where it fits, the module's own box predictor if it has other classes.

    What the module has no use for, such as a mask head, is left out. Either is one warning.

    Raises:
        CheckpointError: something else is missing or of another shape.
    """
    own = module.state_dict()
    left_over = _left_over(own, state)
    misshapen = _misshapen(own, state)
    anew = [
        n for n in misshapen if n.startswith((f'{FC_CLS}.', f'{FC_REG}.')) and own[n].shape[1:] == state[n].shape[1:]
    ]
    _refuse(module, source, _missing(own, state), [], {n: text for n, text in misshapen.items() if n not in anew})
    if left_over:
        _warn(f'{source} has, unlike the model, {_few(left_over)}: left out')
    if anew:
        layers = ' and '.join(sorted({n.rpartition('.')[0] for n in anew}))
        given, wanted = (len(weights[f'{FC_CLS}.bias']) - 1 for weights in (state, own))
        _warn(f'{source} has {given} classes, the model {wanted}: {layers} start anew')
    return {name: own[name] if name in anew else value for name, value in state.items() if name not in left_over}


def _refuse(module: nn.Module, source: str, missing: list[str], left_over: list[str], shapes: dict[str, str]) -> None:
    problems = (
        ('lacks', missing),
        ('has, unlike the model,', left_over),
        ('has another shape of', list(shapes.values())),
    )
    found = [f'{verb} {_few(names)}' for verb, names in problems if names]
    if found:
        raise CheckpointError(f'{source} does not fit {type(module).__name__}: it {"; it ".join(found)}.\n{_ADVICE}')


def _missing(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    return sorted(n for n in own if n not in state and not n.endswith(_COUNTER))


def _left_over(own: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    return sorted(n for n in state if n not in own and not n.endswith(_COUNTER))


def _misshapen(own: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, str]:
    """Name -> name and both shapes in words."""
    return {
        name: f'{name} {tuple(state[name].shape)} (model: {tuple(value.shape)})'
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    }


def _few(names: list[str]) -> str:
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
