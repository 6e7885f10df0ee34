"""Resuming: the config says how to train, the checkpoint says how far training has come.

Options of the optimiser and schedules are the config's; weights, momentum buffers and position are the checkpoint's. So
the rate after resuming is that of a run which began with this config. Every option in which the two differ is named in
a warning. State that the config cannot go on from, such as that of another optimiser, is an error.
"""

from collections.abc import Sequence
from typing import Any

from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import BaseLoop, IterBasedTrainLoop

from frdet.engine.loops import EpochBasedTrainLoop
from frdet.engine.schedules import Position, advance
from frdet.engine.setup import Setup, changed_options, changed_schedules, equal, in_words, scheduled, setup_in
from frdet.errors import CheckpointError, ConfigError

_BASE = 'base_param_settings'  # where MMEngine's wrapper follows the rate without factors


def position_of(loop: BaseLoop, hub: MessageHub, source: str) -> Position:
    """Where a training loop stands that has taken its position from the checkpoint ``source``.

    Raises:
        ConfigError: the run of the config ends before it, or counts epochs where the checkpoint counts iterations.
    """
    length, instead = len(loop.dataloader), _instead(source)
    by_iteration = isinstance(loop, IterBasedTrainLoop)
    unit, stands, end = ('iter', loop.iter, loop.max_iters) if by_iteration else ('epoch', loop.epoch, loop.max_epochs)
    if stands > end:
        raise ConfigError(
            f'{source} was saved after {unit} {stands}, and train_cfg.max_{unit}s={end} ends before: set it to the end '
            f'of the whole run, which includes what is trained already, {instead}'
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
    done = loop.iter - begun['iter'] if same else 0  # otherwise the loop begins the epoch anew
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
    """Give an optimiser and its schedules, as built from the config, the state that a checkpoint has of them.

    Where config and checkpoint agree the state is taken as it is, so that training goes on to the last bit.

    Args:
        wrapper: the optimiser.
        schedulers: the schedules of its values.
        checkpoint: what MMEngine saved, ``optimizer`` included.
        here: the setup of ``wrapper`` and ``schedulers``.
        position: where the run stands.
        source: the checkpoint's path, for errors.
        listed: whether the config has a list of schedules.

    Returns:
        A warning that names every option in which the two differ; None where there is none.

    Raises:
        CheckpointError: the state is that of another optimiser or of other parameter groups.
        ConfigError: rate or schedules changed, and one of them follows the figures of validation.
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
        _check_computable(schedulers, warning, source)
        advance(schedulers, ['epoch_length' in one for one in here.schedules], wrapper, position)
        taken |= moved
    merged = [
        {**{key: old[key] for key in old if key not in taken}, **{key: new[key] for key in taken if key in new}}
        for old, new in zip(saved, wrapper.param_groups, strict=False)  # MMEngine's base settings may be in one alone
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
        # An older checkpoint does not say the class. A newer PyTorch may add options; it does not exchange them.
        old, new = set(there.groups[0]), set(here.groups[0])
        found = f'an optimiser with {", ".join(sorted(old - new))}' if old - new and new - old else expected
    if found != expected:
        raise CheckpointError(
            f'{source} holds the state of {found}, and optim_wrapper.optimizer.type is {expected}, which cannot go on '
            f'from it: resume with the optimiser of the checkpoint, {_instead(source)}'
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
    """The parameters that only one of two lists of groups has, or that another group has."""
    if old is None:
        return ''
    here, there = ({name: k for k, group in enumerate(groups) for name in group} for groups in (new, old))
    names = [name for name in {**there, **here} if here.get(name) != there.get(name)] or list(here)
    return f' (others, or in another place: {", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'


def _check_computable(schedulers: Sequence[_ParamScheduler], warning: str | None, source: str) -> None:
    for scheduler in schedulers:
        if getattr(scheduler, 'need_val_args', False):
            raise ConfigError(
                f'{type(scheduler).__name__} follows the figures of validation, so that the rate of a changed setup '
                f'cannot be computed. {warning or "The checkpoint has no state of its schedules"}, {_instead(source)}'
            )


def _instead(source: str) -> str:
    return f'or begin from the weights alone: --cfg-options load_from={source}, without --resume'
