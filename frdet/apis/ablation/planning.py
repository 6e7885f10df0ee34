"""From what to compare to the folder of a study: configs, a trial of each, and the plan that a user reads."""

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from terminaltables import AsciiTable

from frdet.apis.ablation.reading import Plan, Variant, differences
from frdet.apis.ablation.running import train_command
from frdet.apis.ablation.study import CONFIG, STUDY, TRIAL, Study, load_study
from frdet.apis.ablation.trial import check_metric, try_config
from frdet.checkpoints.fit import few
from frdet.config import dump_config, load_config
from frdet.errors import ConfigError
from frdet.files import write_file
from frdet.progress import track

SHOWN = 12  # keys of a variant
Trials = dict[str, dict[str, Any]]


def study_of(plan: Plan, work_dir: str | Path) -> Study:
    """The study of a plan in its folder, which is only looked at.

    Raises:
        ConfigError: the folder holds something else: another study, or runs of a variant with another config.
    """
    names = tuple(variant.name for variant in plan.variants)
    study = Study(Path(work_dir), names, plan.seeds, plan.metric, plan.less_is_better, plan.bootstrap)
    if not study.work_dir.exists():
        return study
    if not study.work_dir.is_dir():
        raise ConfigError(f'{work_dir} is a file: give another --work-dir')
    if not (study.work_dir / STUDY).is_file():
        if any(study.work_dir.iterdir()):
            raise ConfigError(f'{work_dir} holds files, and no study: give another --work-dir')
        return study
    if (base := load_study(work_dir).base) != study.base:
        raise ConfigError(f'{work_dir} holds a study with the base {base}, not {study.base}: give another --work-dir')
    for variant in plan.variants:
        _refuse_changed(study, variant)
    return study


def _refuse_changed(study: Study, variant: Variant) -> None:
    """Raise ConfigError if a run of the variant has begun with another config."""
    path = study.folder(variant.name) / CONFIG
    begun = [job.name for job in study.jobs_of(variant.name) if job.state != 'waiting']
    if not begun or not path.is_file() or path.read_text(encoding='utf-8') == dump_config(variant.cfg):
        return
    changed = differences(load_config(path), variant.cfg)
    rows = [f'    {key}: {_shown(old)} -> {_shown(new)}' for key, (old, new) in list(changed.items())[:SHOWN]]
    raise ConfigError(
        f'The config of {variant.name} has changed since {", ".join(begun)} began:\n'
        + '\n'.join(rows or ['    a variable, or the place where results are written'])
        + f'\nRuns of both would be averaged: give another --work-dir, or remove {study.folder(variant.name)}'
    )


def write_study(plan: Plan, study: Study) -> None:
    """Write the folder of a study, whose runs are kept."""
    study.work_dir.mkdir(parents=True, exist_ok=True)
    study.save()
    for variant in plan.variants:
        folder, text = study.folder(variant.name), dump_config(variant.cfg).encode()
        folder.mkdir(exist_ok=True)
        if not (folder / CONFIG).is_file() or (folder / CONFIG).read_bytes() != text:
            (folder / TRIAL).unlink(missing_ok=True)
            write_file(folder / CONFIG, text)


@contextmanager
def rehearsal(plan: Plan) -> Iterator[Study]:
    """The study of a plan in a folder that is removed, to try its variants."""
    with tempfile.TemporaryDirectory() as folder:
        study = study_of(plan, folder)
        write_study(plan, study)
        yield study


def try_variants(study: Study) -> Trials:
    """Try each variant of a written study that was not tried yet; see ``frdet.apis.ablation.trial``.

    Returns:
        Name of a variant -> what was measured.

    Raises:
        ConfigError: a variant cannot be trained, or its validation does not give the metric of the study.
    """
    trials: Trials = {}
    for name in track(study.variants, 'Two iterations of each variant', delay=0):
        folder = study.folder(name)
        trials[name] = study.trial(name) or try_config(folder / CONFIG, folder / TRIAL, f'Variant {name}')
        check_metric(study.metric, trials[name]['metrics'], f'Variant {name}')
    return trials


def plan_table(plan: Plan, study: Study, trials: Trials, jobs: int) -> str:
    """The plan in words: the keys in which each variant differs, and the cost of the runs that are left.

    Args:
        trials: of ``try_variants``; the cost of other variants is not known.
        jobs: processes at once.
    """
    lines = [f'{len(study.variants)} configs x {len(study.seeds)} seeds ({_listed(study.seeds)}), ']
    lines[0] += f'compared by {study.metric} of the last validation'
    for variant in plan.variants[1:]:
        lines.append(f'{variant.name}:')
        shown = list(variant.differences.items())
        lines += [f'    {key}: {_shown(old)} -> {_shown(new)}' for key, (old, new) in shown[:SHOWN]]
        lines += [f'    and {len(shown) - SHOWN} more keys'] if len(shown) > SHOWN else []
    lines += plan.notes
    rows, total = [['config', 'runs left', 's / iteration', 'iterations', 'memory, MB', 'hours a run']], 0.0
    for name in study.variants:
        trial, left = trials.get(name, {}), _left(study, name)
        total += left * trial.get('hours', 0)
        columns = {'seconds': '.3f', 'iterations': ',', 'memory': ',.0f', 'hours': '.2f'}
        rows.append([name, str(left), *(f'{trial[key]:{form}}' if trial else '?' for key, form in columns.items())])
    table = AsciiTable(rows)
    table.justify_columns = dict.fromkeys(range(1, len(rows[0])), 'right')
    lines.append(table.table)
    if total:
        lines.append(f'By two iterations of each, the runs that are left take {total:.2f} hours{_at_once(total, jobs)}')
    return '\n'.join(lines)


def check_budget(plan: Plan, study: Study, trials: Trials) -> None:
    """Raise ConfigError if the runs that are left take longer than the budget, or were not tried."""
    if plan.budget is None:
        return
    if unknown := [name for name in study.variants if name not in trials]:
        raise ConfigError(f'The budget needs the cost of a run, and {few(unknown)} was not tried: leave --no-trial out')
    hours = sum(_left(study, name) * trials[name]['hours'] for name in study.variants)
    if hours > plan.budget:
        raise ConfigError(
            f'The runs that are left take about {hours:.1f} hours, more than the budget of {plan.budget:g}: take fewer '
            'seeds or variants, or a shorter schedule for all (--cfg-options train_cfg.max_epochs=...)'
        )


def commands(study: Study, train: str | Path) -> list[str]:
    """A command for each run that is left. ``flock`` locks the run as ``tools/ablate.py`` does."""
    return [
        shlex.join(['flock', '-w', '1', str(job.lock), *train_command(job, train)])
        for job in study.jobs()
        if not job.is_finished
    ]


def _left(study: Study, variant: str) -> int:
    return sum(not job.is_finished for job in study.jobs_of(variant))


def _at_once(hours: float, jobs: int) -> str:
    return '' if jobs == 1 else f', {hours / jobs:.2f} with {jobs} at once'


def _shown(value: str | None) -> str:
    if value is None:
        return 'not set'
    return value if len(value) <= 60 else f'{value[:57]}...'


def _listed(seeds: tuple[int, ...]) -> str:
    whole = seeds == tuple(range(seeds[0], seeds[0] + len(seeds))) and len(seeds) > 3
    return f'{seeds[0]} to {seeds[-1]}' if whole else ', '.join(map(str, seeds))
