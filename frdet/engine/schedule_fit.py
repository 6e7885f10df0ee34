"""Whether what counts epochs or iterations fits the loop of a run and its length."""

from collections.abc import Iterator

from mmengine.hooks import CheckpointHook, ProfilerHook
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner

from frdet.errors import ConfigError


def check_counting(runner: Runner) -> None:
    """Raise ConfigError if something counts epochs under a loop that counts iterations, where no epoch ever ends.

    The other way round is fine: every loop counts iterations. A schedule that follows the figures of validation counts
    validations.
    """
    if not isinstance(runner.train_loop, IterBasedTrainLoop):
        return
    places = [place for place, one in _schedules(runner) if one.by_epoch and not _follows_figures(one)]
    for hook in runner.hooks:
        if isinstance(hook, (CheckpointHook, ProfilerHook)) and hook.by_epoch:
            places.append('default_hooks.checkpoint' if isinstance(hook, CheckpointHook) else type(hook).__name__)
    if getattr(runner.log_processor, 'by_epoch', False):
        places.append('log_processor')
    if places:
        raise ConfigError(
            f'train_cfg.type={type(runner.train_loop).__name__} counts iterations (max_iters={runner.max_iters}), and '
            f'no epoch ends there for {", ".join(f"{place}.by_epoch=True" for place in places)}: set these to False, '
            'with milestones, end and interval in iterations, or train_cfg.type=EpochBasedTrainLoop'
        )


def misfits(runner: Runner) -> list[str]:
    """In which points the schedules do not fit the length of the run, in words; such a run is legal."""
    found: list[str] = []
    last: dict[str, tuple[float, str]] = {}  # of the schedules that lower a value, the one that reaches furthest
    for place, one in _schedules(runner):
        total, unit = (runner.max_epochs, 'epoch') if one.by_epoch else (runner.max_iters, 'iteration')
        label, run_ends = f'{place} ({type(one).__name__})', f'the run ends after {unit} {total}'
        found += [f'{label} {text}: {run_ends}' for text in _beyond(one, total, unit)]
        reach = _reach(one, total)
        if reach is not None and reach / total >= last.get(one.param_name, (0,))[0]:
            last[one.param_name] = reach / total, f'{label} changes nothing after {unit} {reach}: {run_ends}'
    return found + [text for share, text in last.values() if share < 1]


def _schedules(runner: Runner) -> Iterator[tuple[str, _ParamScheduler]]:
    """Every schedule with its place in the config."""
    built, listed = runner.param_schedulers or [], not isinstance(runner.cfg.get('param_scheduler'), dict)
    for name, group in built.items() if isinstance(built, dict) else [('', built)]:
        place = f'param_scheduler.{name}' if name else 'param_scheduler'
        for k, one in enumerate(group):
            yield f'{place}.{k}' if listed else place, one


def _follows_figures(one: _ParamScheduler) -> bool:
    return bool(getattr(one, 'need_val_args', False))


def _beyond(one: _ParamScheduler, total: int, unit: str) -> Iterator[str]:
    """What of a schedule lies beyond the end of a run, or beyond its own."""
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
    """The times at which a value falls at once, counted from ``begin``; the first of those that repeat."""
    if hasattr(one, 'step_size'):
        return [one.step_size]
    return sorted(getattr(one, 'milestones', ()))


def _length(one: _ParamScheduler) -> int | None:
    """How long a schedule takes to its last value; None where there is none."""
    if hasattr(one, 'total_iters'):  # which counts the steps between values
        return int(one.total_iters) + 1
    if hasattr(one, 'cumulative_periods'):
        return int(one.cumulative_periods[-1])
    length = getattr(one, 'T_max', getattr(one, 'total_steps', None))
    return None if length is None else int(length)


def _reach(one: _ParamScheduler, total: int) -> int | None:
    """Until when a schedule changes a value; None for a warm-up, and for one that follows the figures of validation.

    Milestones that all lie in the first half of a run were hardly meant for it: the last of them counts.
    """
    if _follows_figures(one) or getattr(one, 'end_factor', 0) == 1 or hasattr(one, 'factor'):
        return None
    length = _length(one)
    end = one.end if length is None else min(one.end, one.begin + length)
    turns = _turns(one)
    if hasattr(one, 'milestones') and turns and one.begin + turns[-1] < total / 2:
        return one.begin + turns[-1]
    return int(end)


def check_one_cycle(runner: Runner) -> None:
    """Raise ConfigError if a one-cycle schedule has fewer steps than the run, which MMEngine would stop at the end."""
    for place, one in _schedules(runner):
        total = runner.max_epochs if one.by_epoch else runner.max_iters
        steps = min(one.end - 1, total) - one.begin
        if steps > getattr(one, 'total_steps', steps):
            raise ConfigError(
                f'{place}.total_steps is {one.total_steps}, and the run takes {steps} steps of it: set '
                f'{place}.total_steps={steps}, or {place}.end={one.begin + one.total_steps}'
            )
