"""Resuming: the config says how to train, the checkpoint says how far training has come.

The options of optimiser and schedules are taken from the config, the weights, momentum buffers and position from the
checkpoint. So the learning rate after resuming is the rate of a run that began with this config. A warning names every
option in which the two differ. A state that does not fit the config, such as another optimiser's, is an error.
"""

from collections.abc import Sequence
from typing import Any

from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import BaseLoop, IterBasedTrainLoop

from frdet.engine.loops import EpochBasedTrainLoop
from frdet.engine.schedules import Position, advance, follows_metric
from frdet.engine.setup import Setup, changed_options, changed_schedules, equal, in_words, scheduled, setup_in
from frdet.errors import CheckpointError, ConfigError

_BASE = 'base_param_settings'  # the key of MMEngine's wrapper for the rate without factors


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
    options, schedules = changed_options(here, there), changed_schedules(here, there, listed=listed)
    warning = in_words(options + schedules)

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
    raise CheckpointError(
        f'{source} holds the state of {_groups(before)}, and this config trains {_groups(sizes)}{_moved(new, old)}: '
        f'resume with optim_wrapper.paramwise_cfg and frozen layers as they were, {_instead(source)}'
    )


def _groups(sizes: list[int]) -> str:
    return f'{len(sizes)} parameter group{"s" * (len(sizes) > 1)} of {", ".join(map(str, sizes))} parameters'


def _moved(new: list[list[str]], old: list[list[str]] | None) -> str:
    """Name the parameters that are in another group, or only in one of the two lists of groups."""
    if old is None:
        return ''
    here, there = ({name: k for k, group in enumerate(groups) for name in group} for groups in (new, old))
    names = [name for name in {**there, **here} if here.get(name) != there.get(name)] or list(here)
    return f' (others, or in another group: {", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'


def _instead(source: str) -> str:
    return f'or start from the weights alone: --cfg-options load_from={source}, without --resume'
