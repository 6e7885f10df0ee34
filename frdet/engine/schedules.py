"""Schedules of the learning rate and momentum: their settings, their position, and whether they fit the run.

In a config, the times of a schedule are numbers of epochs or iterations, or shares of the run; see ``resolve_shares``.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mmengine.hooks import CheckpointHook, ProfilerHook
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner

from frdet.errors import ConfigError
from frdet.registry import arguments_of

# Arguments counted in epochs or iterations.
TIMES = ('begin', 'end', 'milestones', 'step_size', 'T_max', 'periods', 'total_steps')
# Arguments that may be shares of the run.
SHARES = ('begin', 'end', 'milestones')
_NO_SETTINGS = {'optimizer', 'param_name', 'last_step', 'base_values', 'verbose'}


class Position(NamedTuple):
    """The position of a run.

    ``progress`` differs from ``iterations`` if the epochs before the checkpoint were longer or shorter.
    """

    epochs: int  # whole epochs, 0 in a loop by iterations
    iterations: int  # steps of the loop
    progress: int  # iterations up to here in a run whose epochs always had ``epoch_length`` iterations
    epoch_length: int  # iterations in an epoch today


def resolve_shares(schedules: Any, epochs: int, iterations: int, key_path: str = 'param_scheduler') -> Any:
    """Return ``schedules`` of a config, in which each share of the run has become a number of epochs or iterations.

    A float is a share, and an integer a number: ``1.0`` is the whole run, ``1`` one epoch or iteration. A share is
    rounded to the nearest number, halves upwards, and is at least 1. A milestone lies within the run, so a share of it
    is at most the last epoch or iteration but one; milestones that are then equal are one, and a run of one epoch has
    none. An ``end`` is at least ``begin + 2``, because a schedule of MMEngine has its last value at ``end - 1``.

    Args:
        schedules: the dict of a schedule, a list of them, or dicts of them by the name of an optimiser. A schedule
            that is built stays as it is.
        epochs: length of the run in epochs, for schedules with ``by_epoch=True``.
        iterations: length of the run in iterations, for the others.

    Raises:
        ConfigError: a float is not from 0 to 1.
    """
    if isinstance(schedules, (list, tuple)):
        return [resolve_shares(one, epochs, iterations, f'{key_path}.{k}') for k, one in enumerate(schedules)]
    if not isinstance(schedules, dict):
        return schedules
    if 'type' not in schedules:
        return {name: resolve_shares(one, epochs, iterations, f'{key_path}.{name}') for name, one in schedules.items()}
    total = epochs if schedules.get('by_epoch', True) else iterations
    found = dict(schedules)
    for name in ('begin', 'end'):
        if isinstance(share := found.get(name), float):
            found[name] = _time_at(share, total, f'{key_path}.{name}')
    if isinstance(schedules.get('end'), float):
        found['end'] = max(found['end'], found.get('begin', 0) + 2)
    if isinstance(milestones := found.get('milestones'), (list, tuple)):
        found['milestones'] = [one for one in milestones if not isinstance(one, float)]
        for k, share in enumerate(milestones):
            if isinstance(share, float):
                time = min(_time_at(share, total, f'{key_path}.milestones.{k}'), total - 1)
                found['milestones'] += [time] if time > 0 and time not in found['milestones'] else []
        found['milestones'].sort()
    return found


def _time_at(share: float, total: int, key_path: str) -> int:
    if not 0 <= share <= 1:
        raise ConfigError(
            f'{key_path} is {share}: expected a whole number of epochs or iterations, or a share of the run from 0.0 '
            'to 1.0'
        )
    return max(math.floor(share * total + 0.5), 1) if share else 0


def settings_of(scheduler: _ParamScheduler, entry: Any = None, epoch_length: int | None = None) -> dict[str, Any]:
    """Return the arguments that ``scheduler`` was built with, as plain values under their names in a config.

    ``entry`` is its dict in the config, which may hold arguments that the schedule does not keep. ``epoch_length`` is
    given if the times were converted from epochs; they are returned in epochs.
    """
    names = _arguments(type(scheduler))
    found = {'type': type(scheduler).__name__, **_settings(vars(scheduler), names, epoch_length)}
    if isinstance(entry, dict):
        found.update({key: _plain(entry[key]) for key in names & set(entry) - set(found)})
    return found


def settings_in(state: dict[str, Any], like: _ParamScheduler | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the schedule that saved ``state``, which does not hold its class.

    ``like`` is the schedule at the same position in the config. If the state fits it, its settings complete the result.
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
    return arguments_of(cls)[0] - _NO_SETTINGS


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
    """Step schedules that have just been built to ``position``, in the order of a run from the start.

    The values in the optimiser become those of such a run, to the last bit. They cannot be computed at once, because
    each schedule changes the value that the schedules before it left. ``converted`` says for each schedule whether it
    counts iterations although the config counts epochs.
    """
    vars(wrapper)['_global_step'] = 0  # MMEngine warns of schedules that are stepped before the optimiser
    pairs = zip(schedulers, converted, strict=True)
    steps = [_steps(k, one.by_epoch, from_epochs, position) for k, (one, from_epochs) in enumerate(pairs)]
    for _, _, k in heapq.merge(*steps):
        schedulers[k].step()


def _steps(index: int, by_epoch: bool, converted: bool, position: Position) -> Iterator[tuple[float, bool, int]]:
    """Yield the times of a schedule's steps, in today's iterations. At the end of an epoch iterations come first."""
    count, length = position.iterations, position.progress / max(position.iterations, 1)
    if by_epoch:
        count, length = position.epochs, position.epoch_length
    elif converted:
        count, length = position.progress, 1
    return ((step * length, by_epoch, index) for step in range(1, count + 1))


def follows_metric(scheduler: _ParamScheduler) -> bool:
    """Return whether a schedule follows a metric of validation, as ``ReduceOnPlateauLR`` does."""
    return bool(getattr(scheduler, 'need_val_args', False))


def check_counting(runner: Runner) -> None:
    """Raise ConfigError if anything counts epochs under a loop that counts iterations, where no epoch ever ends.

    Counting iterations under a loop of epochs is fine. A schedule that follows a metric counts validations.
    """
    if not isinstance(runner.train_loop, IterBasedTrainLoop):
        return
    found = [key_path for key_path, one in _schedules(runner) if one.by_epoch and not follows_metric(one)]
    for hook in runner.hooks:
        if isinstance(hook, (CheckpointHook, ProfilerHook)) and hook.by_epoch:
            found.append('default_hooks.checkpoint' if isinstance(hook, CheckpointHook) else type(hook).__name__)
    if getattr(runner.log_processor, 'by_epoch', False):
        found.append('log_processor')
    if found:
        raise ConfigError(
            f'train_cfg.type={type(runner.train_loop).__name__} counts iterations (max_iters={runner.max_iters}), and '
            f'no epoch ends there for {", ".join(f"{name}.by_epoch=True" for name in found)}: set these to False, '
            'with milestones, end and interval in iterations, or train_cfg.type=EpochBasedTrainLoop'
        )


def check_one_cycle(runner: Runner) -> None:
    """Raise ConfigError if a one-cycle schedule has fewer steps than the run, which MMEngine would stop at the end."""
    for key_path, one in _schedules(runner):
        total = runner.max_epochs if one.by_epoch else runner.max_iters
        steps = min(one.end - 1, total) - one.begin
        if steps > getattr(one, 'total_steps', steps):
            raise ConfigError(
                f'{key_path}.total_steps is {one.total_steps}, and the run takes {steps} steps of it: set '
                f'{key_path}.total_steps={steps}, or {key_path}.end={one.begin + one.total_steps}'
            )


def misfits(runner: Runner) -> list[str]:
    """Say in words where the schedules do not fit the length of the run, which is allowed."""
    found: list[str] = []
    last: dict[str, tuple[float, str]] = {}  # of the schedules that lower a value, the one that ends last
    for key_path, one in _schedules(runner):
        total, unit = (runner.max_epochs, 'epoch') if one.by_epoch else (runner.max_iters, 'iteration')
        label, run_ends = f'{key_path} ({type(one).__name__})', f'the run ends after {unit} {total}'
        found += [f'{label} {text}: {run_ends}' for text in _beyond(one, total, unit)]
        reach = _reach(one, total)
        if reach is not None and reach / total >= last.get(one.param_name, (0,))[0]:
            last[one.param_name] = reach / total, f'{label} changes nothing after {unit} {reach}: {run_ends}'
    return found + [text for share, text in last.values() if share < 1]


def _schedules(runner: Runner) -> Iterator[tuple[str, _ParamScheduler]]:
    """Yield every schedule with its key path in the config."""
    built, listed = runner.param_schedulers or [], not isinstance(runner.cfg.get('param_scheduler'), dict)
    for name, group in built.items() if isinstance(built, dict) else [('', built)]:
        key_path = f'param_scheduler.{name}' if name else 'param_scheduler'
        for k, one in enumerate(group):
            yield f'{key_path}.{k}' if listed else key_path, one


def _beyond(one: _ParamScheduler, total: int, unit: str) -> Iterator[str]:
    """Describe the parts of a schedule that lie after the end of the run, or after the schedule's own end."""
    if one.begin >= total:
        yield f'begins after {unit} {one.begin}'
        return
    turns = [one.begin + turn for turn in _turns(one)]
    if late := [turn for turn in turns if turn >= total]:
        yield f'never reaches {unit} {", ".join(map(str, late))}'
    if cut := [turn for turn in turns if one.end <= turn < total]:
        yield f'never reaches {unit} {", ".join(map(str, cut))}, since its end is {one.end}'
    if (length := _length(one)) is not None and one.begin + length > total:
        yield f'needs until {unit} {one.begin + length}'


def _turns(one: _ParamScheduler) -> list[int]:
    """Return the times at which a value drops, counted from ``begin``; of repeated drops only the first."""
    return [one.step_size] if hasattr(one, 'step_size') else sorted(getattr(one, 'milestones', ()))


def _length(one: _ParamScheduler) -> int | None:
    """Return how long a schedule takes to its last value; None if it has no last value."""
    if hasattr(one, 'total_iters'):  # which counts the steps between values
        return int(one.total_iters) + 1
    if hasattr(one, 'cumulative_periods'):
        return int(one.cumulative_periods[-1])
    length = getattr(one, 'T_max', getattr(one, 'total_steps', None))
    return None if length is None else int(length)


def _reach(one: _ParamScheduler, total: int) -> int | None:
    """Return the time of a schedule's last change; None for a warm-up and for a schedule that follows a metric.

    If all milestones lie in the first half of a run, they were hardly meant for this run: then the last one counts.
    """
    if follows_metric(one) or getattr(one, 'end_factor', 0) == 1 or hasattr(one, 'factor'):
        return None
    length = _length(one)
    end = one.end if length is None else min(one.end, one.begin + length)
    turns = _turns(one)
    if hasattr(one, 'milestones') and turns and one.begin + turns[-1] < total / 2:
        return one.begin + turns[-1]
    return int(end)
