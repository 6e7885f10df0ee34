"""The traces of the runs of a study: where the last checkpoint of each finished run loses objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from frdet.apis.ablation.study import Job, Study
from frdet.checkpoints.fit import few
from frdet.checkpoints.runs import last_checkpoint
from frdet.config import load_config
from frdet.errors import ConfigError, DataError, UserError
from frdet.insight.trace.folders import FOLDER, is_outdated
from frdet.insight.trace.making import make_trace
from frdet.insight.trace.model import SUMMARY, Summary

Percents = Mapping[str, float]  # stage -> percent of the objects


@dataclass(frozen=True)
class Traces:
    """What the traces of a study say.

    Attributes:
        percents: variant -> seed -> percent of the objects at each stage.
        notes: variant -> sentences about traces that are left out.
    """

    percents: dict[str, dict[int, Percents]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def trace_folder(job: Job) -> Path:
    """The folder of the trace of a run."""
    return job.work_dir / FOLDER


def trace_runs(study: Study) -> list[str]:
    """Trace the last checkpoint of each finished run that has no trace of it, on the data of its validation.

    Returns:
        A sentence for each reason why runs could not be traced.
    """
    failures: dict[str, list[str]] = {}
    for job in study.jobs():
        if job.is_finished and _why_not(job) is not None:
            print(f'Tracing {job.name}', flush=True)
            try:
                _trace(job)
            except Exception as error:  # a trace only explains a run: the page of the study is made without it
                reason = str(error) if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
                failures.setdefault(reason, []).append(job.name)
    return [f'No trace of {few(names)}: {reason}' for reason, names in failures.items()]


def _trace(job: Job) -> None:
    checkpoint = last_checkpoint(job.work_dir)
    if checkpoint is None:
        raise ConfigError('its work dir names no last checkpoint')
    cfg = load_config(job.config)
    cfg.work_dir, cfg.log_level = str(trace_folder(job)), 'WARNING'
    cfg.visualizer = dict(type='Visualizer', vis_backends=[])  # a trace is no run of a tracking service
    make_trace(cfg, str(checkpoint), trace_folder(job), split='val')


def _why_not(job: Job) -> str | None:
    """Why the trace of a run does not count, in a sentence; None if it does, '' if there is none."""
    folder = trace_folder(job)
    if not (folder / SUMMARY).is_file():
        return ''
    try:
        traced = Summary.load(folder).checkpoint
    except DataError as error:
        return str(error)
    last = last_checkpoint(job.work_dir)
    if last is None or not last.is_file():  # removed, to save room
        return None
    if Path(traced or '').name != last.name or is_outdated(folder, last):
        return f'{folder} is no trace of the last checkpoint {last.name}: --trace makes it anew'
    return None


def read_traces(study: Study) -> Traces:
    """Read the traces of the finished runs. All that count are of as many objects, with the same settings."""
    found = Traces()
    first: tuple[Job, Summary] | None = None
    for job in (job for job in study.jobs() if job.is_finished):
        why = _why_not(job)
        if why is None:
            summary = Summary.load(trace_folder(job))
            first = first or (job, summary)
            why = _difference(summary, first[1], first[0].name)
            if not why:
                percents = {name: 100 * n / max(summary.objects, 1) for name, n in summary.counts.items()}
                found.percents.setdefault(job.variant, {})[job.seed] = percents
        if why:
            found.notes.setdefault(job.variant, []).append(f'{job.name}: {why}')
    return found


def _difference(one: Summary, first: Summary, name: str) -> str:
    """Why a trace cannot be compared with the first one, which has this name, in a sentence; '' if it can."""
    facts = {'IoU': 'iou', 'least size': 'min_size', 'number of objects': 'objects'}
    for fact, attribute in facts.items():
        values = getattr(one, attribute), getattr(first, attribute)
        if values[0] != values[1]:
            return f'its trace has the {fact} {values[0]:g}, and that of {name} has {values[1]:g}: it is left out'
    return ''


def mean_percents(runs: Iterable[Percents]) -> dict[str, float]:
    """The mean of each stage over the runs that have it."""
    runs = list(runs)
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: fmean(run[name] for run in runs if name in run) for name in names}
