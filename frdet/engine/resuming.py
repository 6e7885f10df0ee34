"""Resuming: the config says how to train, the checkpoint says how far training has come.

The options of optimiser and schedules are taken from the config, the weights, momentum buffers and position from the
checkpoint. So the learning rate after resuming is the rate of a run that began with this config. A warning names every
option in which the two differ. A state that does not fit the config, such as another optimiser's, is an error.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from torch import nn

from frdet.engine.loops import EpochBasedTrainLoop
from frdet.engine.schedules import Position, advance, follows_metric, settings_in
from frdet.errors import CheckpointError, ConfigError

#: The key in a checkpoint's ``meta`` of the ``Setup`` of the run that saved it.
SETUP = 'setup'
_BASE = 'base_param_settings'  # the key of MMEngine's wrapper for the rate without factors


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


def position_of(loop: BaseLoop, hub: MessageHub, source: str) -> Position:
    """Return the position of a training loop that has just loaded the checkpoint ``source``.

    Raises:
        ConfigError: the config's run ends before it, or counts epochs although the checkpoint counts iterations.
    """
    length, instead = len(loop.dataloader), _instead(source)
    by_iteration = isinstance(loop, IterBasedTrainLoop)
    unit, done, end = ('iter', loop.iter, loop.max_iters) if by_iteration else ('epoch', loop.epoch, loop.max_epochs)
    if done > end:
        raise ConfigError(
            f'{source} was saved after {unit} {done}, and train_cfg.max_{unit}s={end} ends before: set it to the end '
            f'of the whole run, which includes the {unit}s before the checkpoint, {instead}'
        )
    begun = hub.get_info('epoch_begin')
    if isinstance(loop, EpochBasedTrainLoop) and begun is None and loop.epoch == 0 < loop.iter:
        raise ConfigError(
            f'{source} was saved by a loop that counts iterations, after {loop.iter}, and train_cfg.type='
            f'{type(loop).__name__} counts epochs: resume with train_cfg.type=IterBasedTrainLoop, {instead}'
        )
    if by_iteration:
        return Position(epochs=0, iterations=loop.iter, progress=loop.iter, epoch_length=length)
    same = begun is not None and begun['epoch'] == loop.epoch and begun['length'] == length
    done = loop.iter - begun['iter'] if same else 0  # else the loop repeats the epoch
    return Position(loop.epoch, loop.iter, loop.epoch * length + done, length)


def resume_state(
    wrapper: OptimWrapper,
    schedulers: Sequence[_ParamScheduler],
    checkpoint: dict[str, Any],
    here: Setup,
    position: Position,
    *,
    source: str,
    listed: bool = True,
) -> str | None:
    """Load the state in a checkpoint into an optimiser and its schedules, which were built from the config.

    If config and checkpoint agree, the state is loaded unchanged, so training continues to the last bit. ``source`` is
    the checkpoint's path, ``listed`` is whether the config has a list of schedules.

    Returns:
        A warning that names every option in which the two differ; None if they agree.

    Raises:
        CheckpointError: the state belongs to another optimiser or to other parameter groups.
        ConfigError: rate or schedules changed, and a schedule follows a metric.
    """
    there = setup_in(checkpoint, here, schedulers)
    _check_same_optimizer(here, there, source)
    _check_same_parameters(here, there, checkpoint['optimizer'], source)
    options = list(changed_options(here, there))
    warning = in_words([*options, *changed_schedules(here, there, listed=listed)])

    state, states = dict(checkpoint['optimizer']), checkpoint.get('param_schedulers') or []
    saved = [*state['param_groups'], *([state[_BASE]] if _BASE in state else [])]
    taken = {change.option for change in options}
    moved = set().union(*map(scheduled, [*saved, *wrapper.param_groups]))
    anew = bool(taken & moved) or not equal(here.schedules, there.schedules) or len(states) != len(schedulers)
    if anew:
        if followers := [type(one).__name__ for one in schedulers if follows_metric(one)]:
            raise ConfigError(
                f'{followers[0]} follows a metric of validation, so the rate of a changed setup cannot be computed. '
                f'{warning or "The checkpoint has no state of its schedules"}, {_instead(source)}'
            )
        advance(schedulers, ['epoch_length' in one for one in here.schedules], wrapper, position)
        taken |= moved
    pairs = zip(saved, wrapper.param_groups, strict=False)  # only one of them may have MMEngine's base settings
    merged = [
        {**{key: old[key] for key in old if key not in taken}, **{key: new[key] for key in taken if key in new}}
        for old, new in pairs
    ]
    count = len(state['param_groups'])
    state['param_groups'] = merged[:count]
    state.pop(_BASE, None)
    if len(merged) > count:
        state[_BASE] = merged[count]
    wrapper.load_state_dict(state)
    if not anew:
        for scheduler, own in zip(schedulers, states, strict=True):
            scheduler.load_state_dict(own)
    return warning


def _check_same_optimizer(here: Setup, there: Setup, source: str) -> None:
    found, expected = there.optimizer, here.optimizer
    if found is None:
        # An older checkpoint does not hold the class. A newer PyTorch may add options, but does not replace them.
        old, new = set(there.groups[0]), set(here.groups[0])
        found = f'an optimiser with {", ".join(sorted(old - new))}' if old - new and new - old else expected
    if found != expected:
        raise CheckpointError(
            f'{source} holds the state of {found}, and optim_wrapper.optimizer.type is {expected}, which cannot load '
            f'it: resume with the optimiser of the checkpoint, {_instead(source)}'
        )


def _check_same_parameters(here: Setup, there: Setup, state: dict[str, Any], source: str) -> None:
    new, old = here.parameters or [], there.parameters
    sizes, before = [len(group) for group in new], [len(group['params']) for group in state['param_groups']]
    if (new == old) if old is not None else (sizes == before):
        return
    moved = ''
    if old is not None:
        ours, theirs = ({name: k for k, group in enumerate(groups) for name in group} for groups in (new, old))
        names = [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)] or list(ours)
        moved = f' (others, or in another group: {", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
    found, trained = (
        f'{len(counts)} parameter group{"s" * (len(counts) > 1)} of {", ".join(map(str, counts))} parameters'
        for counts in (before, sizes)
    )
    raise CheckpointError(
        f'{source} holds the state of {found}, and this config trains {trained}{moved}: resume with '
        f'optim_wrapper.paramwise_cfg and frozen layers as they were, {_instead(source)}'
    )


def _instead(source: str) -> str:
    return f'or start from the weights alone: --cfg-options load_from={source}, without --resume'


def changed_options(here: Setup, there: Setup) -> Iterator[Change]:
    """Yield the differences between the optimisers, in the order of the groups' keys."""
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
            yield Change(key, path, new[0], value, override)
        for k, (one, other) in enumerate(zip(new, old, strict=True)):
            if not _same_factor((one, new[0]), (other, old[0])):
                path = f'optim_wrapper.paramwise_cfg: {key} of parameter group {k}'
                yield Change(key, path, one, other, None)
                break


def _same_factor(new: tuple[Any, Any], old: tuple[Any, Any]) -> bool:
    """Return whether one factor leads from the second value of each pair, the first group's, to the first value."""
    if equal(*new) and equal(*old):
        return True
    if all(isinstance(value, (int, float)) for value in new + old):
        return equal(new[0] * old[1], old[0] * new[1])
    return equal(new[0], old[0])


def changed_schedules(here: Setup, there: Setup, *, listed: bool = True) -> Iterator[Change]:
    """Yield the differences between the schedules; ``listed`` if ``param_scheduler`` is a list, not a single dict."""
    new, old = here.schedules, there.schedules
    if len(new) != len(old):
        yield _changed_whole('param_scheduler', new, old)
        return
    for k, (one, other) in enumerate(zip(new, old, strict=True)):
        path = f'param_scheduler.{k}' if listed else 'param_scheduler'
        if any(one.get(key) != other.get(key) for key in ('type', 'convert_to_iter_based')):
            yield _changed_whole(path, one, other)
            continue
        for key in sorted((one.keys() | other.keys()) - {'epoch_length'}):
            before = other.get(key)
            if not equal(one.get(key), before):
                yield Change(key, f'{path}.{key}', one.get(key), before, f'{path}.{key}={shown(before)}')


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
