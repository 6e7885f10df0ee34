"""From the runs of a study to what it has found about each variant."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from frdet.apis.ablation.study import CONFIG, Job, Study
from frdet.checkpoints.fit import few
from frdet.config import load_config
from frdet.errors import UserError
from frdet.insight.ablation.conclusions import Conclusion, Difference, Interval
from frdet.insight.ablation.outcomes import Outcome, read_outcome
from frdet.insight.ablation.statistics import Key, corrected, difference, mean_and_spread, verdict
from frdet.insight.ablation.traces import Percents, Traces, mean_percents, read_traces
from frdet.insight.errors import KINDS
from frdet.insight.flops import count_flops
from frdet.progress import track

#: Metric values beside the study's own: the end of the name in the log, and the name in tables.
BESIDE = {
    'bbox_mAP': 'AP',
    'bbox_mAP_50': 'AP50',
    'bbox_mAP_75': 'AP75',
    'bbox_mAP_s': 'AP_s',
    'bbox_mAP_m': 'AP_m',
    'bbox_mAP_l': 'AP_l',
    'segm_mAP': 'AP of masks',
}
Outcomes = Mapping[int, Outcome]  # seed -> what the run has reached


def conclude(study: Study) -> list[Conclusion]:
    """What the finished runs of a study say about each variant, the base first. It may be asked at any time."""
    outcomes: dict[str, dict[int, Outcome]] = {variant: {} for variant in study.variants}
    missing: dict[str, dict[str, str]] = {variant: {} for variant in study.variants}
    for job in track(list(study.jobs()), 'Reading the runs'):
        state = job.state
        try:
            found = read_outcome(study, job) if state == 'finished' else _why_missing(job, state)
        except UserError as error:
            found = str(error)
        if isinstance(found, Outcome):
            outcomes[job.variant][job.seed] = found
        else:
            missing[job.variant][job.name] = found
    base = outcomes[study.base]
    differences = corrected(
        _told((variant, _values(base), _values(outcomes[variant])) for variant in study.variants[1:])
    )
    traces = read_traces(study)
    return [
        _conclude(study, variant, base, outcomes[variant], missing[variant], differences.get(variant), traces)
        for variant in track(study.variants, 'Comparing the variants')
    ]


def _why_missing(job: Job, state: str) -> str:
    """Why a run that is not finished has no value."""
    if state != 'stopped':
        return {'running': 'is running', 'waiting': 'has not begun'}[state]
    words = job.last_words()
    return f'stopped before its end: {" / ".join(words)}' if words else 'stopped before its end, and printed nothing'


def _conclude(
    study: Study,
    variant: str,
    base: Outcomes,
    own: Outcomes,
    missing: Mapping[str, str],
    told: Difference | None,
    traces: Traces,
) -> Conclusion:
    values, trial, is_base = _values(own), study.trial(variant), variant == study.base
    mean, spread = mean_and_spread(list(values.values()))
    parts = {} if is_base else _parts(study, base, own)
    images, over_images = ({}, None) if is_base else _over_images(base, own)
    base_traced, traced = traces.percents.get(study.base, {}), traces.percents.get(variant, {})
    memory = [one.memory for one in own.values() if one.memory is not None]
    hours = [one.hours for one in own.values()]
    times = [time for one in own.values() for time in one.times]
    return Conclusion(
        variant,
        values,
        mean,
        spread,
        missing=missing,
        notes=[*_notes(study, variant, base, own), *traces.notes.get(variant, ())],
        difference=told,
        verdict='' if is_base else verdict(told, less_is_better=study.less_is_better),
        images=images,
        over_images=over_images,
        sizes={name: one for (kind, name), one in parts.items() if kind == 'size'},
        classes={name: one for (kind, name), one in parts.items() if kind == 'class'},
        errors=_mean_errors(own.values()),
        lost=mean_percents(traced.values()),
        stages={} if is_base else _stages(base_traced, traced),
        seconds=float(np.median(times)) if times else None,
        hours=float(np.mean(hours)) if hours else None,
        memory=max(memory) if memory else trial.get('memory'),
        params=trial.get('params'),
        flops=_flops(study, variant),
    )


def _values(outcomes: Outcomes) -> dict[int, float]:
    return {seed: one.value for seed, one in outcomes.items()}


def _told(triples: Iterable[tuple[Key, Mapping[int, float], Mapping[int, float]]]) -> dict[Key, Difference]:
    """The differences of those that have a pair of runs."""
    found = ((name, difference(base, own)) for name, base, own in triples)
    return {name: one for name, one in found if one is not None}


def _parts(study: Study, base: Outcomes, own: Outcomes) -> dict[tuple[str, str], Difference]:
    """Differences of metric values by size and of each class, corrected for their number."""
    ends = [end for end in BESIDE if end != study.metric.rpartition('/')[2]]
    classes = dict.fromkeys(name for one in own.values() for name in one.validation.classes)

    def values(outcomes: Outcomes, kind: str, name: str) -> dict[int, float]:
        found = {seed: one.metrics if kind == 'size' else one.validation.classes for seed, one in outcomes.items()}
        return {seed: one[name] for seed, one in found.items() if name in one}

    keys = [*(('size', end) for end in ends), *(('class', name) for name in classes)]
    told = _told((key, values(base, *key), values(own, *key)) for key in keys)
    return {(kind, BESIDE[name] if kind == 'size' else name): one for (kind, name), one in corrected(told).items()}


def _stages(base: Mapping[int, Percents], own: Mapping[int, Percents]) -> dict[str, Difference]:
    """Differences of the percentage of objects at each stage that any run lost objects at, corrected for their number.

    A stage without objects would only raise the q of the others.
    """

    def values(runs: Mapping[int, Percents], name: str) -> dict[int, float]:
        return {seed: run[name] for seed, run in runs.items() if name in run}

    runs = [*base.values(), *own.values()]
    names = [name for name in mean_percents(own.values()) if any(run.get(name) for run in runs)]
    return corrected(_told((name, values(base, name), values(own, name)) for name in names))


def _over_images(base: Outcomes, own: Outcomes) -> tuple[dict[int, Interval], Interval | None]:
    """Intervals over images: of the difference of each pair, and of the mean of all pairs."""
    drawn = {
        seed: np.subtract(one.validation.sampled, base[seed].validation.sampled)
        for seed, one in own.items()
        if seed in base and one.tested == base[seed].tested and one.validation.sampled and base[seed].validation.sampled
    }
    has_all = drawn and drawn.keys() == own.keys() & base.keys()
    return (
        {seed: _interval(values) for seed, values in drawn.items()},
        _interval(np.mean(list(drawn.values()), axis=0)) if has_all else None,
    )


def _interval(sampled: np.ndarray) -> Interval:
    """The middle 95% of the samples; the first value is that of all images, and no sample."""
    low, high = np.nanpercentile(sampled[1:], (2.5, 97.5))
    return Interval(float(low), float(high))


def _notes(study: Study, variant: str, base: Outcomes, own: Outcomes) -> list[str]:
    """Sentences about what could not be computed or compared, each with the names of its runs."""
    runs: dict[str, list[str]] = {}
    for seed, one in own.items():
        is_other = seed in base and one.tested != base[seed].tested
        said = [f'validated on other images or classes than {study.base}: these cannot be compared'] if is_other else []
        for sentence in (*said, *one.validation.doubts):
            runs.setdefault(sentence, []).append(study.job(variant, seed).name)
    return [f'{few(names)}: {sentence}' for sentence, names in runs.items()]


def _mean_errors(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """The AP that each kind of error costs, the mean over the runs that are analysed."""
    costs: Sequence[Mapping[str, float]] = [one.validation.errors for one in outcomes if one.validation.errors]
    return {kind: float(np.mean([cost[kind] for cost in costs])) for kind in KINDS} if costs else {}


def _flops(study: Study, variant: str) -> int | None:
    """FLOPs of the inference of one image as large as in the trial; None if they cannot be counted."""
    try:
        height, width = study.trial(variant)['input_size']
        return count_flops(load_config(study.folder(variant) / CONFIG), (height, width))[-1].flops
    except Exception:  # not tried, or a model of another package that may raise anything
        return None
