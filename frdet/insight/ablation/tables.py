"""The main table of a study, for the terminal, the page, Markdown, CSV and LaTeX."""

import csv
import io
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from terminaltables import AsciiTable

from frdet.apis.ablation.study import Study
from frdet.checkpoints.fit import few
from frdet.errors import ConfigError
from frdet.files import write_file
from frdet.insight.ablation.conclusions import Conclusion, Difference, Interval
from frdet.insight.ablation.statistics import difference

NONE = '–'
STAGES = 'Percent of the objects that each stage lost, or that are found: means of the traced runs, and differences'
Column = tuple[str, Callable[[Conclusion], str]]


def main_table(
    study: Study, conclusions: Sequence[Conclusion], *, with_costs: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Head and a row for each variant, the base first. A column without any value is left out."""
    columns: list[Column] = [
        ('variant', lambda one: one.variant),
        (study.metric, _mean),
        ('seeds', lambda one: _seeds(study, one.values)),
        ('difference', lambda one: _difference(study, one.difference)),
        ('95%, seeds', lambda one: _interval(one.difference.interval if one.difference else None)),
        *([('q', lambda one: _q(one.difference))] if len(conclusions) > 2 else []),
        ('95%, images', lambda one: _interval(one.over_images)),
        ('verdict', lambda one: one.verdict or NONE),
    ]
    costs: list[Column] = [
        ('s / iteration', lambda one: _number(one.seconds, '.3g')),
        ('hours', lambda one: _number(one.hours, '.3g')),
        ('memory, MB', lambda one: _number(one.memory, ',.0f')),
        ('parameters, M', lambda one: _number(one.params and one.params / 1e6, '.2f')),
        ('GFLOPs', lambda one: _number(one.flops and one.flops / 1e9, '.2f')),
    ]
    made = {name: [make(one) for one in conclusions] for name, make in (*columns, *(costs if with_costs else ()))}
    filled = {name: cells for name, cells in made.items() if set(cells) != {NONE}}
    return list(filled), [list(row) for row in zip(*filled.values(), strict=True)]


def stage_table(conclusions: Sequence[Conclusion]) -> tuple[list[str], list[list[str]]]:
    """Head and a row for each stage of a detector with any object: percentages, and differences to the base."""
    names = dict.fromkeys(name for one in conclusions for name in one.lost)
    head, columns = ['stage'], [[name for name in names if any(one.lost.get(name) for one in conclusions)]]
    for one in (one for one in conclusions if one.lost):
        head.append(one.variant)
        columns.append([_number(one.lost.get(stage), '.1f') for stage in columns[0]])
        if one.stages:
            told = [one.stages.get(stage) for stage in columns[0]]
            head += ['difference', '95%, seeds', 'q']
            columns.append([_number(of.mean if of else None, '+.1f') for of in told])
            columns.append([_interval(of.interval if of else None, '+.1f') for of in told])
            columns.append([_q(of) for of in told])
    return head, [list(row) for row in zip(*columns, strict=True)]


def _number(value: float | None, form: str) -> str:
    return NONE if value is None or math.isnan(value) else format(value, form)


def _mean(one: Conclusion) -> str:
    mean, spread = (_number(value, '.4f') for value in (one.mean, one.spread))
    return mean if spread == NONE else f'{mean} ± {spread}'


def _difference(study: Study, told: Difference | None) -> str:
    """The mean of the pairs, with their seeds if these are not all."""
    if told is None:
        return NONE
    is_of_all = len(told.by_seed) == len(study.seeds)
    return f'{told.mean:+.4f}' if is_of_all else f'{told.mean:+.4f} (seeds {_listed(told.by_seed)})'


def _seeds(study: Study, seeds: Collection[int]) -> str:
    """Their number, and which ones if these are not all."""
    count = f'{len(seeds)} of {len(study.seeds)}'
    return count if len(seeds) in (0, len(study.seeds)) else f'{count}: {_listed(seeds)}'


def _listed(seeds: Iterable[int]) -> str:
    return ', '.join(map(str, sorted(seeds)))


def _interval(interval: Interval | None, form: str = '+.4f') -> str:
    return f'[{interval.low:{form}}, {interval.high:{form}}]' if interval else NONE


def _q(told: Difference | None) -> str:
    q = told.q if told else None
    return '< 0.001' if q is not None and q < 0.001 else _number(q, '.3f')


def remarks(study: Study, conclusions: Sequence[Conclusion]) -> list[str]:
    """Sentences that belong under the table: what the columns mean, and what is missing."""
    return [*meanings(study, conclusions), *gaps(study, conclusions)]


def meanings(study: Study, conclusions: Sequence[Conclusion]) -> list[str]:
    """What the columns of the main table mean."""
    told = [one for one in conclusions if one.difference is not None and one.difference.interval is not None]
    said = [
        f'{study.metric}: of the last validation, the mean of the finished runs ± the standard deviation over their '
        f'seeds{"; less is better" if study.less_is_better else ""}.'
    ]
    if told:
        said.append(
            '95%, seeds: where the mean difference to the base lies for other seeds with the same validation images '
            "(Student's t over the pairs of runs with equal seeds)."
        )
    if any(one.over_images for one in conclusions):
        said.append(
            '95%, images: where the mean difference of these trained models lies for other validation images '
            f'({study.bootstrap} bootstrap samples of the images).'
        )
    if told and len(conclusions) > 2:
        said.append(
            'q: the p value over seeds, corrected for the number of variants (Benjamini and Hochberg). A variant is '
            'called better or worse if its interval over seeds excludes 0 and q is at most 0.05.'
        )
    return said


def gaps(study: Study, conclusions: Sequence[Conclusion]) -> list[str]:
    """Which runs have no value, and what could not be computed; runs with the same reason share a sentence."""
    said: list[str] = []
    reasons: dict[str, list[str]] = {}
    for name, reason in (item for one in conclusions for item in one.missing.items()):
        reasons.setdefault(reason, []).append(name)
    if len({frozenset(one.values) for one in conclusions}) > 1:
        said.append(
            f'The means of {study.metric} are of different seeds: compare the differences, which are of pairs, instead.'
        )
    said += [f'Missing: {few(names)} ({reason})' for reason, names in reasons.items()]
    said += [note for one in conclusions for note in one.notes]
    return [' '.join(sentence.split()) for sentence in said]


def printed(study: Study, conclusions: Sequence[Conclusion]) -> str:
    """The table without the costs, and the remarks, for a terminal."""
    head, rows = main_table(study, conclusions, with_costs=False)
    return '\n'.join([AsciiTable([head, *rows]).table, *remarks(study, conclusions)])


def write_tables(study: Study, conclusions: Sequence[Conclusion], folder: str | Path) -> list[Path]:
    """Write ``ablation.md``, ``ablation.csv`` and ``ablation.tex``.

    Raises:
        ConfigError: they cannot be written.
    """
    made = {'ablation.md': markdown, 'ablation.csv': comma_separated, 'ablation.tex': latex}
    for name, make in made.items():
        try:
            write_file(Path(folder, name), make(study, conclusions).encode())
        except OSError as error:
            raise ConfigError(f'{Path(folder, name)} cannot be written ({error.strerror})') from None
    return [Path(folder, name) for name in made]


def markdown(study: Study, conclusions: Sequence[Conclusion]) -> str:
    """The table, the remarks, and a table of the stages that lose objects, as Markdown."""

    def escaped(text: str) -> str:
        return re.sub(r'([\\`*_<>|])', r'\\\1', text)

    def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        lines = [list(map(escaped, head)), ['---'] * len(head), *(list(map(escaped, row)) for row in rows)]
        return [f'| {" | ".join(cells)} |' for cells in lines]

    lines = [*table(*main_table(study, conclusions)), '', *(f'- {escaped(one)}' for one in remarks(study, conclusions))]
    if any(one.lost for one in conclusions):
        lines += ['', f'{STAGES}:', '', *table(*stage_table(conclusions))]
    return '\n'.join(lines) + '\n'


def comma_separated(study: Study, conclusions: Sequence[Conclusion]) -> str:
    """A row for each variant with unrounded numbers; what is not known is empty."""
    rows = [dict(_unrounded(study, one)) for one in conclusions]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _unrounded(study: Study, one: Conclusion) -> Iterator[tuple[str, Any]]:
    def known(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else value

    told = one.difference
    yield from (('variant', one.variant), ('metric', study.metric))
    yield from ((f'seed_{seed}', one.values.get(seed)) for seed in study.seeds)
    yield from (('mean', known(one.mean)), ('spread', known(one.spread)))
    yield 'pairs', len(told.by_seed) if told else None
    for name in ('mean', 'spread', 'p', 'q', 'seeds_to_tell'):
        yield f'difference_{name}' if name in ('mean', 'spread') else name, known(getattr(told, name, None))
    for name, interval in (('seeds', told and told.interval), ('images', one.over_images)):
        low, high = interval or (None, None)
        yield from ((f'{name}_low', low), (f'{name}_high', high))
    for name in ('verdict', 'seconds', 'hours', 'memory', 'params', 'flops'):
        yield name, getattr(one, name)
    yield 'missing', '; '.join(f'{name}: {reason}' for name, reason in one.missing.items())


_LATEX = {
    **{char: f'\\{char}' for char in '&%$#_{}'},
    '\\': r'\textbackslash{}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '±': r'$\pm$',
    '[': '{[}',  # after a line break it would begin an argument
    '<': '$<$',
    '>': '$>$',
    NONE: '--',
}


def latex(study: Study, conclusions: Sequence[Conclusion]) -> str:
    """The table for the package booktabs. The best mean is bold if it is told apart from every other row."""

    def escaped(text: str) -> str:
        return ''.join(_LATEX.get(char, char) for char in text)

    head, rows = main_table(study, conclusions)
    body = [[escaped(row[0]), *(re.sub(r'-(?=\d)', '$-$', escaped(cell)) for cell in row[1:])] for row in rows]
    best = best_variant(study, conclusions)
    for one, cells in zip(conclusions, body, strict=True):
        if one.variant == best:
            cells[1] = rf'\textbf{{{cells[1]}}}'
    lines = [' & '.join(cells) + r' \\' for cells in (list(map(escaped, head)), *body)]
    return '\n'.join([
        *(f'% {one}' for one in remarks(study, conclusions)),
        rf'\begin{{tabular}}{{l{"r" * (len(head) - 1)}}}',
        r'\toprule', lines[0], r'\midrule', *lines[1:], r'\bottomrule',
        r'\end{tabular}',
        '',
    ])  # fmt: skip


def best_variant(study: Study, conclusions: Sequence[Conclusion]) -> str | None:
    """The variant that is told apart from every other one as better: the interval of each difference excludes 0."""

    def beats(values: Mapping[int, float], others: Mapping[int, float]) -> bool:
        told = difference(others, values)
        if told is None or told.interval is None:
            return False
        return told.interval.high < 0 if study.less_is_better else told.interval.low > 0

    every = {one.variant: one.values for one in conclusions}
    for name, values in every.items():
        if len(every) > 1 and all(beats(values, every[other]) for other in every if other != name):
            return name
    return None
