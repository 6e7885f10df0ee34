"""What an optimiser and its schedules were built with, and in which options two such setups differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from torch import nn

from frdet.engine.schedules import settings_in

#: Where a checkpoint's ``meta`` holds the ``Setup`` of the run that saved it.
SETUP = 'setup'


@dataclass
class Setup:
    """What an optimiser was built with before any schedule changed it, and what its schedules were built with.

    Attributes:
        optimizer: name of the class; None in a checkpoint that does not say it.
        groups: options of each parameter group, such as ``lr``, scaled to the images in a step, and ``weight_decay``.
        parameters: names of each group's parameters; None in a checkpoint that does not say them.
        base_lr: ``optimizer.lr`` as the config has it; None in a checkpoint that does not say it.
        schedules: ``settings_of`` each schedule.
    """

    optimizer: str | None
    groups: list[dict[str, Any]]
    parameters: list[list[str]] | None = None
    base_lr: float | None = None
    schedules: list[dict[str, Any]] = field(default_factory=list)


class Change(NamedTuple):
    """An option in which config and checkpoint differ.

    Attributes:
        option: its name in the parameter groups or schedules.
        place: where it stands in the config.
        here: the config's value.
        there: the checkpoint's value.
        override: what gives the config the checkpoint's value, for ``--cfg-options``; None if one value cannot.
    """

    option: str
    place: str
    here: Any
    there: Any
    override: str | None


def setup_of(wrapper: OptimWrapper, model: nn.Module) -> Setup:
    """The setup of an optimiser that has just been built and has no schedules yet."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    return Setup(
        optimizer=type(wrapper.optimizer).__name__,
        groups=[_options(group) for group in groups],
        parameters=[[names.get(id(parameter), '') for parameter in group['params']] for group in groups],
        base_lr=wrapper.optimizer.defaults.get('lr'),
    )


def setup_in(checkpoint: dict[str, Any], here: Setup, schedulers: Sequence[_ParamScheduler]) -> Setup:
    """The setup of the run that saved ``checkpoint``; what an older checkpoint does not say is taken from its state.

    Args:
        checkpoint: what MMEngine saved.
        here: the setup of today's run.
        schedulers: its schedules.
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
    """Keys of a parameter group whose values schedules change or keep there."""
    names = {key.removeprefix('initial_') for key in group if key.startswith('initial_')}
    found = {prefix + name for name in names for prefix in ('', 'initial_', 'max_', 'min_')}
    return found | ({'betas'} if 'momentum' in names else set())  # of which schedules of momentum change the first


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """Options of a parameter group without what schedules have made of them."""
    aside = {key for key in scheduled(group) if f'initial_{key}' not in group} | {'params', 'param_names'}
    found = {key: group.get(f'initial_{key}', value) for key, value in group.items() if key not in aside}
    if 'betas' in group and 'initial_momentum' in group:
        found['betas'] = (found.pop('momentum'), group['betas'][1])
    return found


def changed_options(here: Setup, there: Setup) -> list[Change]:
    """Options of the optimiser that differ, in the order of the groups' keys."""
    found = []
    for key in here.groups[0]:
        if not all(key in group for group in here.groups + there.groups):
            continue  # an option that only one version of PyTorch has
        new, old = ([group[key] for group in setup.groups] for setup in (here, there))
        if not equal(new[0], old[0]):
            found.append(_changed_base(key, new[0], old[0], here.base_lr))
        for k, (one, other) in enumerate(zip(new, old, strict=True)):
            if not _same_factor((one, new[0]), (other, old[0])):
                place = f'optim_wrapper.paramwise_cfg: {key} of parameter group {k}'
                found.append(Change(key, place, one, other, None))
                break
    return found


def _changed_base(key: str, new: Any, old: Any, base_lr: float | None) -> Change:
    place = f'optim_wrapper.optimizer.{key}'
    if key == 'lr' and base_lr and not equal(base_lr, new):
        return Change(
            key, f'{place}, scaled to the images in a step,', new, old, f'{place}={shown(base_lr * old / new)}'
        )
    return Change(key, place, new, old, f'{place}={shown(old)}')


def _same_factor(new: tuple[Any, Any], old: tuple[Any, Any]) -> bool:
    """Whether ``paramwise_cfg`` made the first of a pair from the second, the first group's value, by one factor."""
    if equal(*new) and equal(*old):
        return True
    if all(isinstance(value, (int, float)) for value in new + old):
        return equal(new[0] * old[1], old[0] * new[1])
    return equal(new[0], old[0])


def changed_schedules(here: Setup, there: Setup, *, listed: bool = True) -> list[Change]:
    """Arguments of the schedules that differ, in the order of the schedules.

    Args:
        here: today's.
        there: the checkpoint's.
        listed: whether the config has a list of schedules, not the dict of a single one.
    """
    new, old = here.schedules, there.schedules
    if len(new) != len(old):
        return [_changed_whole('param_scheduler', new, old)]
    found = []
    for k, (one, other) in enumerate(zip(new, old, strict=True)):
        place = f'param_scheduler.{k}' if listed else 'param_scheduler'
        if any(one.get(key) != other.get(key) for key in ('type', 'convert_to_iter_based')):
            found.append(_changed_whole(place, one, other))
            continue
        for key in sorted((one.keys() | other.keys()) - {'epoch_length'}):
            if not equal(one.get(key), other.get(key)):
                at = f'{place}.{key}'
                found.append(Change(key, at, one.get(key), other.get(key), f'{at}={shown(other.get(key))}'))
    return found


def _changed_whole(place: str, new: Any, old: Any) -> Change:
    known = all('type' in one for one in (old if isinstance(old, list) else [old]))
    return Change('param_scheduler', place, new, old, f'"{place}={shown(old)}"' if known else None)


def in_words(changes: Sequence[Change]) -> str | None:
    """A warning that names every change; None if there is none."""
    if not changes:
        return None
    named = '; '.join(f'{one.place} {shown(one.here)} (checkpoint: {shown(one.there)})' for one in changes)
    overrides = ' '.join(one.override for one in changes if one.override is not None)
    offers = [f"For the checkpoint's values add --cfg-options {overrides}"] if overrides else []
    if others := [one.place for one in changes if one.override is None]:
        offers.append(f'For {" and ".join(others)} as in the checkpoint take the config that it was trained with')
    return f"The config's values hold where those of the checkpoint are others: {named}. {'. '.join(offers)}"


def shown(value: Any) -> str:
    """``value`` as ``--cfg-options`` reads it."""
    if isinstance(value, float):
        return f'{value:.10g}'
    if isinstance(value, dict):
        keys = [key for key in value if key != 'epoch_length']
        return f'dict({",".join(f"{key}={shown(value[key])}" for key in keys)})'
    if isinstance(value, (list, tuple)):
        left, right = '[]' if isinstance(value, list) else '()'
        return left + ','.join(map(shown, value)) + right
    return str(value)


def equal(one: Any, other: Any) -> bool:
    """Whether two options are the same, up to the rounding of a rate that was scaled; a list is as a tuple."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return all(equal(one.get(key), other.get(key)) for key in one.keys() | other.keys())
    if isinstance(one, float) or isinstance(other, float):
        return (
            isinstance(one, (int, float)) and isinstance(other, (int, float)) and math.isclose(one, other, rel_tol=1e-6)
        )
    return bool(one == other)
