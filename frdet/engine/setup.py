"""The arguments that an optimiser and its schedules were built with, and the differences between two such setups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from torch import nn

from frdet.engine.schedules import settings_in

#: The key in a checkpoint's ``meta`` of the ``Setup`` of the run that saved it.
SETUP = 'setup'


@dataclass
class Setup:
    """The arguments of an optimiser, before any schedule changed them, and of its schedules.

    ``optimizer``, ``parameters`` and ``base_lr`` are None if a checkpoint does not hold them.
    """

    optimizer: str | None  # name of the class
    groups: list[dict[str, Any]]  # options of each parameter group; ``lr`` is scaled to the images in a step
    parameters: list[list[str]] | None = None  # names of each group's parameters
    base_lr: float | None = None  # ``optimizer.lr`` in the config
    schedules: list[dict[str, Any]] = field(default_factory=list)  # ``settings_of`` each schedule


class Change(NamedTuple):
    """An option that has the value ``here`` in the config and ``there`` in the checkpoint."""

    option: str  # name in the parameter groups or schedules
    key_path: str  # in the config, or words if there is none
    here: Any
    there: Any
    override: str | None  # the ``--cfg-options`` that set the checkpoint's value; None if one value cannot


def setup_of(wrapper: OptimWrapper, model: nn.Module) -> Setup:
    """Return the setup of an optimiser that has just been built and has no schedules yet."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    return Setup(
        optimizer=type(wrapper.optimizer).__name__,
        groups=[_options(group) for group in groups],
        parameters=[[names.get(id(parameter), '') for parameter in group['params']] for group in groups],
        base_lr=wrapper.optimizer.defaults.get('lr'),
    )


def setup_in(checkpoint: dict[str, Any], here: Setup, schedulers: Sequence[_ParamScheduler]) -> Setup:
    """Return the setup of the run that saved ``checkpoint``.

    An older checkpoint has no setup: its states are read with the help of today's setup ``here`` and ``schedulers``.
    """
    if saved := checkpoint['meta'].get(SETUP):
        return Setup(**saved)
    schedules = []
    for k, state in enumerate(checkpoint.get('param_schedulers') or []):
        like = (schedulers[k], here.schedules[k]) if k < len(schedulers) else (None, {})
        schedules.append(settings_in(state, *like))
    groups = [_options(group) for group in checkpoint['optimizer']['param_groups']]
    return Setup(optimizer=None, groups=groups, schedules=schedules)


def scheduled(group: dict[str, Any]) -> set[str]:
    """Return the keys of a parameter group that schedules change or add."""
    names = {key.removeprefix('initial_') for key in group if key.startswith('initial_')}
    found = {prefix + name for name in names for prefix in ('', 'initial_', 'max_', 'min_')}
    return found | ({'betas'} if 'momentum' in names else set())  # schedules of momentum change the first beta


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a parameter group before schedules changed them."""
    aside = {key for key in scheduled(group) if f'initial_{key}' not in group} | {'params', 'param_names'}
    found = {key: group.get(f'initial_{key}', value) for key, value in group.items() if key not in aside}
    if 'betas' in group and 'initial_momentum' in group:
        found['betas'] = (found.pop('momentum'), group['betas'][1])
    return found


def changed_options(here: Setup, there: Setup) -> list[Change]:
    """Return the differences between the optimisers, in the order of the groups' keys."""
    found = []
    for key in here.groups[0]:
        if not all(key in group for group in here.groups + there.groups):
            continue  # only one version of PyTorch has this option
        new, old = ([group[key] for group in setup.groups] for setup in (here, there))
        if not equal(new[0], old[0]):
            path, value = f'optim_wrapper.optimizer.{key}', old[0]
            override = f'{path}={shown(value)}'
            if key == 'lr' and here.base_lr and not equal(here.base_lr, new[0]):
                override = f'{path}={shown(here.base_lr * value / new[0])}'
                path += ', scaled to the images in a step,'
            found.append(Change(key, path, new[0], value, override))
        for k, (one, other) in enumerate(zip(new, old, strict=True)):
            if not _same_factor((one, new[0]), (other, old[0])):
                path = f'optim_wrapper.paramwise_cfg: {key} of parameter group {k}'
                found.append(Change(key, path, one, other, None))
                break
    return found


def _same_factor(new: tuple[Any, Any], old: tuple[Any, Any]) -> bool:
    """Return whether one factor leads from the second value of each pair, the first group's, to the first value."""
    if equal(*new) and equal(*old):
        return True
    if all(isinstance(value, (int, float)) for value in new + old):
        return equal(new[0] * old[1], old[0] * new[1])
    return equal(new[0], old[0])


def changed_schedules(here: Setup, there: Setup, *, listed: bool = True) -> list[Change]:
    """Return the differences between the schedules; ``listed`` if ``param_scheduler`` is a list, not a single dict."""
    new, old = here.schedules, there.schedules
    if len(new) != len(old):
        return [_changed_whole('param_scheduler', new, old)]
    found = []
    for k, (one, other) in enumerate(zip(new, old, strict=True)):
        path = f'param_scheduler.{k}' if listed else 'param_scheduler'
        if any(one.get(key) != other.get(key) for key in ('type', 'convert_to_iter_based')):
            found.append(_changed_whole(path, one, other))
            continue
        for key in sorted((one.keys() | other.keys()) - {'epoch_length'}):
            before = other.get(key)
            if not equal(one.get(key), before):
                found.append(Change(key, f'{path}.{key}', one.get(key), before, f'{path}.{key}={shown(before)}'))
    return found


def _changed_whole(path: str, new: Any, old: Any) -> Change:
    known = all('type' in one for one in (old if isinstance(old, list) else [old]))
    return Change('param_scheduler', path, new, old, f'"{path}={shown(old)}"' if known else None)


def in_words(changes: Sequence[Change]) -> str | None:
    """Return a warning that names every change; None if there is no change."""
    if not changes:
        return None
    named = '; '.join(f'{one.key_path} {shown(one.here)} (checkpoint: {shown(one.there)})' for one in changes)
    overrides = ' '.join(one.override for one in changes if one.override is not None)
    offers = [f"For the checkpoint's values add --cfg-options {overrides}"] if overrides else []
    if others := [one.key_path for one in changes if one.override is None]:
        offers.append(f'For {" and ".join(others)} as in the checkpoint take the config that it was trained with')
    return f"The config's values hold where the checkpoint has others: {named}. {'. '.join(offers)}"


def shown(value: Any) -> str:
    """Return ``value`` as ``--cfg-options`` reads it."""
    if isinstance(value, float):
        return f'{value:.10g}'
    if isinstance(value, dict):
        return f'dict({",".join(f"{key}={shown(value[key])}" for key in value if key != "epoch_length")})'
    if isinstance(value, (list, tuple)):
        left, right = '[]' if isinstance(value, list) else '()'
        return left + ','.join(map(shown, value)) + right
    return str(value)


def equal(one: Any, other: Any) -> bool:
    """Return whether two options are the same, up to the rounding of a scaled rate; a list may equal a tuple."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return all(equal(one.get(key), other.get(key)) for key in one.keys() | other.keys())
    if isinstance(one, float) or isinstance(other, float):
        return all(isinstance(v, (int, float)) for v in (one, other)) and math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)
