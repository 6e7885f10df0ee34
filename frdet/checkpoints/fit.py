"""Checks that weights fit a model. MMEngine only warns where they do not."""

import logging

from mmengine.logging import print_log
from torch import Tensor, nn

from frdet.checkpoints.names import few
from frdet.errors import CheckpointError

_COUNTER = 'num_batches_tracked'
_ADVICE = "Give the checkpoint of this config's model, or change the model to fit: depth, norm, number of classes"


def check_fit(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Compare names and shapes of ``state`` with those of the module; BatchNorm's counters of batches may be missing.

    ``source`` names the file, and the layout recognised in it, for errors.

    Raises:
        CheckpointError: a parameter is missing, is left over or has another shape; the first few are named.
    """
    _refuse(module, source, *_differences(module.state_dict(), state))


def load_strictly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load ``state`` into ``module``, if it passes ``check_fit``."""
    check_fit(module, state, source)
    module.load_state_dict(state, strict=False)  # counters of batches may be missing


def fit_to_start(module: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the weights that fine-tuning starts from.

    Layers that a part of the module names in ``class_layers`` keep the module's own weights where the file has them for
    another number of classes. Parameters that the module does not have, such as a mask head's, are left out. Each of
    the two cases gives one warning.

    Raises:
        CheckpointError: another parameter is missing or has another shape.
    """
    own = module.state_dict()
    missing, left_over, misshapen = _differences(own, state)
    layers = _class_layers(module)
    anew = [n for n in misshapen if n.rpartition('.')[0] in layers and own[n].shape[1:] == state[n].shape[1:]]
    _refuse(module, source, missing, [], {n: text for n, text in misshapen.items() if n not in anew})
    if left_over:
        warn(f'{source} has, unlike the model, {few(left_over)}: left out')
    if anew:
        of = {n: n.rpartition('.')[0] for n in anew}
        named, wanted = ' and '.join(sorted(set(of.values()))), {layers[layer] for layer in of.values()}
        given = set.intersection(*(_count_given(len(own[n]), len(state[n]), layers[of[n]]) for n in anew))
        said = f'{given.pop()} classes, the model {wanted.pop()}' if len(given) == len(wanted) == 1 else 'other classes'
        warn(f'{source} has {said}: {named} start anew')
    return {name: own[name] if name in anew else value for name, value in state.items() if name not in left_over}


def _class_layers(module: nn.Module) -> dict[str, int | None]:
    """Return the layers that depend on the classes, as ``class_layers`` declare them, and their numbers of classes."""
    return {
        f'{name}.{layer}'.removeprefix('.'): getattr(part, 'num_classes', None)
        for name, part in module.named_modules()
        for layer in getattr(part, 'class_layers', ())
    }


def _count_given(own: int, given: int, num_classes: int | None) -> set[int]:
    """Return the possible numbers of classes of a layer with ``given`` outputs; ``own`` outputs are ``num_classes``.

    A layer has the same number of outputs for each class; the background may count as a class.
    """
    kinds = {background: num_classes + background for background in (0, 1)} if num_classes else {}
    each = {background: own // count for background, count in kinds.items() if own % count == 0 and own}
    return {given // outputs - background for background, outputs in each.items() if given % outputs == 0}


def _refuse(module: nn.Module, source: str, missing: list[str], left_over: list[str], shapes: dict[str, str]) -> None:
    verbs = ('lacks', 'has, unlike the model,', 'has another shape of')
    problems = zip(verbs, (missing, left_over, list(shapes.values())), strict=True)
    found = [f'{verb} {few(names)}' for verb, names in problems if names]
    if found:
        raise CheckpointError(f'{source} does not fit {type(module).__name__}: it {"; it ".join(found)}.\n{_ADVICE}')


def _differences(own: dict[str, Tensor], state: dict[str, Tensor]) -> tuple[list[str], list[str], dict[str, str]]:
    """Return the missing names, the names left over, and the names of another shape with both shapes in words."""
    missing, left_over = (
        sorted(n for n in one if n not in other and not n.endswith(_COUNTER))
        for one, other in ((own, state), (state, own))
    )
    misshapen = {
        name: f'{name} {tuple(state[name].shape)} (model: {tuple(value.shape)})'
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    }
    return missing, left_over, misshapen


def warn(text: str) -> None:
    """Log a warning."""
    print_log(text, logger='current', level=logging.WARNING)
