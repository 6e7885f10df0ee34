"""The page of a study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from frdet.apis.ablation.study import CONFIG, Job, Study
from frdet.config.origins import leaves
from frdet.errors import ConfigError
from frdet.insight.ablation import plots
from frdet.insight.ablation.conclusions import Conclusion, Interval
from frdet.insight.ablation.reports import report_link, trace_link
from frdet.insight.ablation.tables import NONE, STAGES, gaps, main_table, meanings, stage_table
from frdet.insight.errors import KINDS, kind_texts
from frdet.insight.page import Page, Row
from frdet.insight.report.comparison_page import differences
from frdet.insight.report.run import Log, read_log
from frdet.insight.report.training_page import TIDE

CORRECTED = (
    'Among many comparisons, some look like a difference by chance. q is p corrected for their number: of all rows '
    'with q up to 0.05, one in twenty is expected to be such a chance. These rows are blue in the plot.'
)
BENJAMINI = 'Benjamini and Hochberg, Controlling the False Discovery Rate, 1995'


@dataclass(frozen=True)
class _Findings:
    """What the sections of the page are made from."""

    study: Study
    conclusions: Sequence[Conclusion]
    logs: Mapping[Job, Log]  # of the runs that have begun
    configs: Mapping[str, Mapping[str, Any]]  # variant -> key path -> value; of the configs that can be read
    folder: Path  # of the page

    @property
    def base(self) -> Conclusion:
        return next(one for one in self.conclusions if one.variant == self.study.base)

    @property
    def others(self) -> list[Conclusion]:
        return [one for one in self.conclusions if one.variant != self.study.base]


def write_ablation(
    study: Study, conclusions: Sequence[Conclusion], out: str | Path, *, warnings: Sequence[str] = ()
) -> Path:
    """Write the page of a study, whose runs need not be finished.

    Args:
        study: what was planned.
        conclusions: one for each variant, the base included.
        out: the file.
        warnings: more sentences for the box at the top, such as those of ``write_reports``.

    Raises:
        ConfigError: ``out`` cannot be written.
    """
    jobs = list(study.jobs())
    logs = {job: log for job in jobs if (log := _log_of(job)) is not None}
    configs = {variant: found for variant in study.variants if (found := _config_of(study, variant)) is not None}
    unread = [f'{study.folder(name) / CONFIG} cannot be read' for name in study.variants if name not in configs]
    others = len(study.variants) - 1
    page = Page(
        f'Ablation study {study.work_dir.resolve().name}',
        f'{others} {"variant" if others == 1 else "variants"} beside {study.base}, by {study.metric} of the last '
        f'validation{" (less is better)" if study.less_is_better else ""}.',
        facts={
            'base': study.base,
            'metric': study.metric,
            'seeds': ', '.join(map(str, study.seeds)),
            'finished runs': f'{sum(job.is_finished for job in jobs)} of {len(jobs)}',
        },
        warnings=[*gaps(study, conclusions), *unread, *warnings],
    )
    findings = _Findings(study, conclusions, logs, configs, Path(out).parent)
    for add in (_differences, _curves, _parts, _errors, _stages, _configs, _cost, _pairs, _runs):
        add(page, findings)
    page.write(out)
    return Path(out)


def _log_of(job: Job) -> Log | None:
    try:
        return read_log(job.work_dir)
    except ConfigError:  # it has not begun
        return None


def _config_of(study: Study, variant: str) -> dict[str, Any] | None:
    try:
        # The modules that the config imports may be missing here.
        return dict(leaves('', Config.fromfile(study.folder(variant) / CONFIG, import_custom_modules=False)))
    except Exception:  # a config is code: it may raise anything
        return None


def _differences(page: Page, findings: _Findings) -> None:
    study, compared = findings.study, [one for one in findings.others if one.difference is not None]
    section = page.section(f'Differences to {study.base}')
    verdicts: dict[str, list[str]] = {}
    for one in findings.others:
        verdicts.setdefault(one.verdict, []).append(one.variant)
    for verdict, names in verdicts.items():
        section.text(f'{", ".join(names)}: {verdict}.')
    if compared:
        section.plot(
            plots.forest(study, compared),
            'Thick: mean of the pairs with its interval over seeds. Thin: each pair, in the order of the seeds, with '
            'its interval over images. An arrow: the interval goes on.',
            alt='; '.join(f'{one.variant}: {one.verdict}' for one in compared),
        )
    head, rows = main_table(study, findings.conclusions, with_costs=False)
    section.table(head, _without_dashes(rows), caption='Variants')
    for sentence in meanings(study, findings.conclusions):
        section.text(sentence)


def _curves(page: Page, findings: _Findings) -> None:
    study, logs = findings.study, findings.logs
    section = page.section(
        'Curves',
        'Line and band: mean and range of the finished runs of a variant, at the iterations that all of them have. '
        'Dashed: a run that is not finished.\nVariants with different losses have losses that cannot be compared.',
    )
    for caption, series in (
        (study.metric, lambda log: {record['iter']: record.get(study.metric) for record in log.val}),
        ('Loss', lambda log: dict(zip(*map(np.ndarray.tolist, log.series('loss')), strict=True))),
    ):
        curves = {}
        for variant in study.variants:
            runs: dict[bool, list[plots.Series]] = {True: [], False: []}
            for job, log in logs.items():
                points = {at: value for at, value in series(log).items() if value is not None}
                if job.variant == variant and points:
                    runs[job.is_finished].append(points)
            curves[variant] = plots.Curves(runs[True], runs[False])
        if any(any(of) for of in curves.values()):
            section.plot(plots.bands(study.base, curves), caption)
    if not section.blocks:
        section.text('No run has logged anything yet.')


def _parts(page: Page, findings: _Findings) -> None:
    compared = [one for one in findings.others if one.sizes or one.classes]
    if not compared:
        return
    section = page.section('Metrics and classes', CORRECTED, source=BENJAMINI)
    section.plot(
        plots.parts(compared),
        f'Above the line: other metrics. Below it: AP of the {plots.CLASSES} classes that differ most.',
    )
    rows = []
    for one in compared:
        tags = {'variant': one.variant} if len(compared) > 1 else {}
        for kind, found in (('metric', one.sizes), ('class', one.classes)):
            for name, difference in sorted(found.items(), key=lambda item: _last_if_none(item[1].q)):
                cells = [_signed(difference.mean), _interval(difference.interval), difference.p, difference.q]
                rows.append(Row([one.variant, kind, name, len(difference.by_seed), *cells], tags=tags))
    head = ['variant', 'of', 'name', 'pairs', 'difference', '95%, seeds', 'p', 'q']
    section.table(head, rows, caption='Differences of other metrics and of classes, the surest first')


def _errors(page: Page, findings: _Findings) -> None:
    base, others = findings.base, [one for one in findings.others if one.errors]
    if not base.errors or not others:
        return
    section = page.section(
        'Errors',
        'How much AP at IoU 0.5 would rise if only the errors of one kind were corrected: the mean over the seeds.',
        source=TIDE,
    )
    section.plot(plots.errors(base, others), 'AP that each kind of error costs')
    kinds = [kind for kind in KINDS if kind in base.errors]
    rows = [[one.variant, *(one.errors.get(kind) for kind in kinds)] for one in (base, *others)]
    section.table(['variant', *kinds], rows, caption='AP lost by kind of error')
    meanings = [[kind, kind_texts()[kind]] for kind in kinds]
    section.table(['error', 'a detection that'], meanings, caption='Kinds of errors')


def _stages(page: Page, findings: _Findings) -> None:
    if not any(one.lost for one in findings.conclusions):
        return
    section = page.section(
        'Where objects are lost',
        'The stages of the detector in their order, by the traces of the last checkpoints: each object is found, or it '
        'is counted at the stage that lost it. Differences are of pairs of traced runs with equal seeds, with 95% '
        'intervals over seeds; q is p corrected for the number of stages, and blue means that it is at most 0.05.',
    )
    if compared := [one for one in findings.others if one.stages]:
        section.plot(plots.stages(compared), f'Variant minus {findings.study.base}, in percentage points')
    head, rows = stage_table(findings.conclusions)
    section.table(head, _without_dashes(rows), caption=STAGES)


def _configs(page: Page, findings: _Findings) -> None:
    study, configs = findings.study, findings.configs
    section = page.section('Configs', 'Keys whose values differ; a dash stands where a config has no such key.')
    rows = [
        [variant, *row]
        for variant in study.variants[1:]
        if study.base in configs and variant in configs
        for row in differences([configs[study.base], configs[variant]])
    ]
    if rows:
        section.table(['variant', 'key', study.base, 'variant has'], rows, caption=f'Differences to {study.base}')
    else:
        section.text('No differences were found.')


def _cost(page: Page, findings: _Findings) -> None:
    found, base = findings.conclusions, findings.base
    kinds: dict[str, Callable[[Conclusion], float | None]] = {
        'iteration, s': lambda one: one.seconds,
        'run, h': lambda one: one.hours,
        'memory, MB': lambda one: one.memory,
        'parameters, M': lambda one: one.params and one.params / 1e6,
        'GFLOPs': lambda one: one.flops and one.flops / 1e9,
    }
    columns: list[tuple[str, list[Any]]] = [('variant', [one.variant for one in found])]
    for name, of in kinds.items():
        values = [of(one) for one in found]
        if any(value is not None for value in values):
            columns.append((name, values))
        if (reference := of(base)) and len({value for value in values if value is not None}) > 1:
            columns.append(('%', [None if value is None else f'{value / reference - 1:+.1%}' for value in values]))
    if len(columns) == 1:
        return
    sizes = [findings.study.trial(one.variant).get('input_size') or () for one in found]
    columns.append(('input', ['x'.join(map(str, size)) or None for size in sizes]))
    section = page.section(
        'Cost',
        'Iteration: the median of all runs. Run: without validations. GFLOPs: inference of one image of the size '
        '(height x width) in the last column. Percentages are differences to the base.',
    )
    head, cells = zip(*columns, strict=True)
    section.table(head, zip(*cells, strict=True), caption='Time, memory and size')


def _pairs(page: Page, findings: _Findings) -> None:
    base = findings.base
    rows = [
        [one.variant, seed, base.values[seed], one.values[seed], _signed(value), _interval(one.images.get(seed))]
        for one in findings.others
        for seed, value in (one.difference.by_seed.items() if one.difference else ())
    ]
    if rows:
        about = (
            'Two runs with the same seed saw the same images in the same order, with the same augmentation, unless the '
            'variant itself changes the data or the batch.'
        )
        head = ['variant', 'seed', base.variant, 'variant has', 'difference', '95%, images']
        page.section('Pairs', about).table(head, rows, caption=f'{findings.study.metric} of each pair')


def _runs(page: Page, findings: _Findings) -> None:
    study, values = findings.study, {one.variant: one.values for one in findings.conclusions}
    section = page.section('Runs')
    rows = []
    for job in (job for variant in study.variants for job in study.jobs_of(variant)):
        log, planned = findings.logs.get(job), study.trial(job.variant).get('iterations')
        logged = max((record['iter'] for record in (*log.train, *log.val)), default=0) if log else None
        value, links = values[job.variant].get(job.seed), [of(job, findings.folder) for of in (report_link, trace_link)]
        rows.append([job.variant, job.seed, job.state, value, job.length or logged, planned, *links])
    head = ['variant', 'seed', 'state', study.metric, 'iterations', 'of', 'report', 'trace']
    section.table(head, rows, caption='All runs')
    for job in study.jobs():
        if job.state == 'stopped' and (lines := job.last_words()):
            section.heading(f'{job.name}: what it printed last')
            section.code('\n'.join(lines), label=f'What {job.name} printed last')


def _without_dashes(rows: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Cells of a table: a dash among numbers does not make them text."""
    return [[None if cell == NONE else cell for cell in row] for row in rows]


def _signed(value: float) -> str:
    return f'{value:+.3g}'


def _interval(interval: Interval | None) -> str | None:
    return f'[{_signed(interval.low)},\N{NO-BREAK SPACE}{_signed(interval.high)}]' if interval else None


def _last_if_none(value: float | None) -> float:
    return float('inf') if value is None else value
