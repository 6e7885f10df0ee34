"""Schedules of the learning rate and momentum: what they were built with, and where they stand."""

import heapq
import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler

# Arguments counted in epochs or iterations.
TIMES = ('begin', 'end', 'milestones', 'step_size', 'T_max', 'periods', 'total_steps')
_NO_SETTINGS = {'self', 'optimizer', 'param_name', 'last_step', 'base_values', 'verbose', 'args', 'kwargs'}


class Position(NamedTuple):
    """Where a run stands.

    Attributes:
        epochs: whole epochs, 0 in a loop by iterations.
        iterations: steps of the loop.
        progress: iterations that a run with today's ``epoch_length`` would have behind it. It is another number than
            ``iterations`` where the epochs of the checkpoint were longer or shorter.
        epoch_length: iterations in an epoch.
    """

    epochs: int
    iterations: int
    progress: int
    epoch_length: int


def settings_of(scheduler: _ParamScheduler, entry: Any = None, epoch_length: int | None = None) -> dict[str, Any]:
    """What ``scheduler`` was built with, as plain values under the names that a config has for them.

    Args:
        scheduler: a schedule.
        entry: its dict in the config, which may hold arguments that the schedule does not keep.
        epoch_length: iterations in an epoch, if its times were converted from epochs: they are given in epochs.
    """
    names = _arguments(type(scheduler))
    found = {'type': type(scheduler).__name__, **_settings(vars(scheduler), names, epoch_length)}
    if isinstance(entry, dict):
        found.update({key: _plain(entry[key]) for key in names & set(entry) - set(found)})
    return found


def settings_in(state: dict[str, Any], like: _ParamScheduler | None, settings: dict[str, Any]) -> dict[str, Any]:
    """What the schedule was built with whose state a checkpoint holds, which does not say its class.

    Args:
        state: of ``state_dict``.
        like: the schedule that the config has in its place.
        settings: those of ``like``. Where the state is of its kind, they stand for what the state does not say.
    """
    kept = _arguments(type(like)) & set(vars(like)) if like is not None else set()
    if like is None or not kept <= state.keys() or state.get('param_name') != like.param_name:
        return _settings(state, {key for key in state if not key.startswith('_')} - _NO_SETTINGS)
    length = settings['epoch_length'] if settings.get('convert_to_iter_based') else None
    return {**settings, **_settings(state, kept, length)}


def _settings(attributes: dict[str, Any], names: set[str], epoch_length: int | None = None) -> dict[str, Any]:
    found = {key: _plain(attributes[key]) for key in sorted(names) if key in attributes}
    if epoch_length is not None:
        found.update({key: _in_epochs(found[key], epoch_length) for key in TIMES if key in found})
        found.update(by_epoch=True, convert_to_iter_based=True, epoch_length=epoch_length)
    return found


def _arguments(cls: type) -> set[str]:
    """Arguments of a class and of the parents that it passes its keywords on to, those apart that are no settings."""
    inits = [vars(base)['__init__'] for base in inspect.getmro(cls) if base is not object and '__init__' in vars(base)]
    return {name for init in inits for name in inspect.signature(init).parameters} - _NO_SETTINGS


def _plain(value: Any) -> Any:
    if isinstance(value, Counter):  # of milestones
        return sorted(value.elements())
    return list(value) if isinstance(value, (list, tuple)) else value


def _in_epochs(value: Any, length: int) -> Any:
    if isinstance(value, list):
        return [_in_epochs(one, length) for one in value]
    if value is None or value == INF:
        return value
    return value // length if value % length == 0 else value / length


def advance(
    schedulers: Sequence[_ParamScheduler], converted: Sequence[bool], wrapper: OptimWrapper, position: Position
) -> None:
    """Step schedules that have just been built as a run from the start steps them, to ``position``.

    The values in the optimiser become those of such a run, to the last bit: each schedule changes the value that the
    ones before it left, so that there is no other way to them.

    Args:
        schedulers: the schedules of ``wrapper``, at their first step.
        converted: of each, whether it counts iterations and was given in epochs.
        wrapper: the optimiser whose values change.
        position: where to stop.
    """
    vars(wrapper)['_global_step'] = 0  # MMEngine warns of schedules that are stepped before the optimiser
    pairs = zip(schedulers, converted, strict=True)
    steps = [_steps(k, one.by_epoch, from_epochs, position) for k, (one, from_epochs) in enumerate(pairs)]
    for _, _, k in heapq.merge(*steps):
        schedulers[k].step()


def _steps(index: int, by_epoch: bool, converted: bool, position: Position) -> Iterator[tuple[float, bool, int]]:
    """When a schedule is stepped, in iterations of today's length. At the end of an epoch iterations come first."""
    count, length = position.iterations, position.progress / max(position.iterations, 1)
    if by_epoch:
        count, length = position.epochs, position.epoch_length
    elif converted:
        count, length = position.progress, 1
    return ((step * length, by_epoch, index) for step in range(1, count + 1))
