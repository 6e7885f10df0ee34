"""Whether weights fit a model, which MMEngine leaves to a warning."""

import logging

from mmengine.logging import print_log
from torch import Tensor, nn

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
    """What training starts from: ``state`` where it fits, and the module's own layers that depend on other classes.

    Those layers are what a part names in ``class_layers``. What the module has no use for, such as a mask head, is left
    out. Either is one warning.

    Raises:
        CheckpointError: something else is missing or of another shape.
    """
    own = module.state_dict()
    left_over = _left_over(own, state)
    misshapen = _misshapen(own, state)
    layers = _class_layers(module)
    anew = [n for n in misshapen if n.rpartition('.')[0] in layers and own[n].shape[1:] == state[n].shape[1:]]
    _refuse(module, source, _missing(own, state), [], {n: text for n, text in misshapen.items() if n not in anew})
    if left_over:
        _warn(f'{source} has, unlike the model, {_few(left_over)}: left out')
    if anew:
        of = {n: n.rpartition('.')[0] for n in anew}
        named, wanted = ' and '.join(sorted(set(of.values()))), {layers[layer] for layer in of.values()}
        given = set.intersection(*(_count_given(len(own[n]), len(state[n]), layers[of[n]]) for n in anew))
        said = f'{given.pop()} classes, the model {wanted.pop()}' if len(given) == len(wanted) == 1 else 'other classes'
        _warn(f'{source} has {said}: {named} start anew')
    return {name: own[name] if name in anew else value for name, value in state.items() if name not in left_over}


def _class_layers(module: nn.Module) -> dict[str, int | None]:
    """The layers that depend on the classes, as the parts that have them declare, and each part's number of classes."""
    return {
        f'{name}.{layer}'.removeprefix('.'): getattr(part, 'num_classes', None)
        for name, part in module.named_modules()
        for layer in getattr(part, 'class_layers', ())
    }


def _count_given(own: int, given: int, num_classes: int | None) -> set[int]:
    """The numbers of classes that a layer of ``given`` outputs may have, if ``own`` outputs are for ``num_classes``.

    A layer has the same number of outputs for each class, or for each class and the background.
    """
    kinds = {background: num_classes + background for background in (0, 1)} if num_classes else {}
    each = {background: own // count for background, count in kinds.items() if own % count == 0 and own}
    return {given // outputs - background for background, outputs in each.items() if given % outputs == 0}


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
