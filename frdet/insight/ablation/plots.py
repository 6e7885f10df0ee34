"""The plots of a study; ``frdet.insight.plots`` draws them."""

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from frdet.apis.ablation.study import Study
from frdet.insight.ablation.conclusions import Conclusion, Difference, Interval
from frdet.insight.naming import short
from frdet.insight.plots import COLOURS, Plot

BASE, VARIANT = dict(color=COLOURS['grey'], label='base'), dict(color=COLOURS['blue'], label='variant')
#: Colours of verdicts; every other verdict is grey. The side of the line at 0 says the same without a colour.
VERDICTS = {'better': COLOURS['green'], 'worse': COLOURS['red']}
CLASSES = 8  # of a variant that a plot shows
# Inches of the forest plot.
ROW, PAIR, GAP, LEAST = 0.28, 0.13, 0.2, 0.62
WORDS = 34  # letters of a line of the verdict

Series = Mapping[int, float]  #: iteration -> value
Told = Mapping[str, Difference]


class Curves(NamedTuple):
    """A logged number of the runs of one variant."""

    finished: Sequence[Series]
    unfinished: Sequence[Series]

    @property
    def shared(self) -> tuple[list[int], np.ndarray]:
        """(n,) iterations that all finished runs have, and (runs, n) values."""
        iterations = sorted(set.intersection(*map(set, self.finished))) if self.finished else []
        return iterations, np.array([[run[at] for at in iterations] for run in self.finished])


def forest(study: Study, conclusions: Sequence[Conclusion]) -> Plot:
    """The difference of each variant to the base: mean and interval over seeds, below it every pair of runs."""
    rows = [(one, one.difference) for one in conclusions if one.difference is not None]
    heights = [max(LEAST, ROW + PAIR * len(difference.by_seed)) + GAP for _, difference in rows]
    tops = np.cumsum([0, *heights])

    def paint(axis: Any) -> None:
        low, high = limits((difference for _, difference in rows), (one.images for one, _ in rows))
        digits = max(0, 2 - math.floor(math.log10(2 * (high - low))))
        beside = blended_transform_factory(axis.transAxes, axis.transData)
        axis.set(xlim=(low, high), ylim=(tops[-1], 0), yticks=[], xlabel=f'{study.metric}: variant minus {study.base}')
        axis.grid(axis='y', visible=False)
        axis.spines['left'].set_visible(False)
        axis.axvline(0, color=COLOURS['grey'], linewidth=1.5, zorder=1)
        _name_sides(axis, less_is_better=study.less_is_better)
        for (one, difference), top in zip(rows, tops[:-1], strict=True):
            colour, middle = VERDICTS.get(one.verdict, COLOURS['grey']), top + GAP / 2 + ROW / 2
            if top:
                axis.axhline(top, color=COLOURS['grey'], linewidth=0.8, alpha=0.3)
            _interval(axis, middle, difference.mean, difference.interval, colour, linewidth=4, marker='D', markersize=8)
            for number, (seed, value) in enumerate(difference.by_seed.items()):
                y = middle + ROW / 2 + PAIR * (number + 0.5)
                _interval(axis, y, value, one.images.get(seed), colour, linewidth=1.2, marker='o', markersize=4)
            count = len(difference.by_seed)
            axis.text(-0.03, middle, short([one.variant])[0], ha='right', va='center', transform=beside)
            axis.text(1.03, middle, words(difference, digits), va='center', transform=beside)
            small = dict(va='top', fontsize='small', alpha=0.85, transform=beside, linespacing=1.15)
            axis.text(-0.03, middle + 0.13, '1 pair' if count == 1 else f'{count} pairs', ha='right', **small)
            weight = 'bold' if one.verdict in VERDICTS else 'normal'
            axis.text(1.03, middle + 0.13, textwrap.fill(one.verdict, WORDS), weight=weight, **small)
        _explain(axis)

    return Plot(paint, (9.0, float(tops[-1]) + 1.25))


def limits(differences: Iterable[Difference], images: Iterable[Mapping[int, Interval]] = ()) -> tuple[float, float]:
    """The ends of an axis of differences.

    It shows 0, all pairs and their intervals. An interval over two seeds may be far wider than all of that: as much
    again is shown on each side, and an arrow stands where it goes on.
    """
    differences = list(differences)
    shown = [0.0, *(end for intervals in images for interval in intervals.values() for end in interval)]
    shown += [value for difference in differences for value in (difference.mean, *difference.by_seed.values())]
    low, high = min(shown), max(shown)
    width = high - low or 0.01
    ends = [end for difference in differences for end in difference.interval or ()]
    low, high = max(min(low, *ends, -width / 4), low - width), min(max(high, *ends, width / 4), high + width)
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def words(difference: Difference, digits: int) -> str:
    """Mean and interval as text."""
    low_high = f' [{", ".join(f"{end:+.{digits}f}" for end in difference.interval)}]' if difference.interval else ''
    return f'{difference.mean:+.{digits}f}{low_high}'.replace('-', '−')


def _interval(axis: Any, y: float, value: float, interval: Interval | None, colour: str, **style: Any) -> None:
    """A marker with its interval; an arrow where the interval goes beyond the axis."""
    low, high = axis.get_xlim()
    thickness, size = style.pop('linewidth'), style['markersize']
    if interval is not None:
        ends = max(interval.low, low), min(interval.high, high)
        axis.plot(ends, (y, y), color=colour, linewidth=thickness, alpha=0.75, solid_capstyle='butt')
        for end, beyond, arrow in ((low, interval.low < low, '<'), (high, interval.high > high, '>')):
            if beyond:
                axis.plot(end, y, color=colour, marker=arrow, markersize=size + 2, clip_on=False)
    axis.plot(value, y, color=colour, **style)


def _name_sides(axis: Any, *, less_is_better: bool) -> None:
    sides = ('better', 'worse') if less_is_better else ('worse', 'better')
    for text, shift, align in ((f'← {sides[0]}', -6, 'right'), (f'{sides[1]} →', 6, 'left')):
        place = dict(xy=(0, 1), xytext=(shift, 5), xycoords=axis.get_xaxis_transform(), textcoords='offset points')
        axis.annotate(text, **place, ha=align, weight='bold')


def _explain(axis: Any) -> None:
    """A legend below the axis, so that the plot can be shown alone."""
    for label, thickness, marker, size in (
        ('mean, 95% interval over seeds', 4, 'D', 8),
        ('one pair of runs, 95% interval over images', 1.2, 'o', 4),
    ):
        axis.plot([], [], color=COLOURS['grey'], linewidth=thickness, marker=marker, markersize=size, label=label)
    axis.legend(loc='upper center', bbox_to_anchor=(0.5, 0), borderaxespad=4.5, ncols=2, fontsize='small')


def parts(conclusions: Sequence[Conclusion]) -> Plot:
    """For each variant the differences of other metrics, and below a line those of the classes that differ most."""
    rows = {}
    for one in conclusions:
        if one.sizes or one.classes:
            classes = sorted(one.classes.items(), key=lambda item: -abs(item[1].mean))[:CLASSES]
            rows[one.variant] = one.sizes, dict(classes)
    return _differences(rows)


def stages(conclusions: Sequence[Conclusion]) -> Plot:
    """For each variant the differences of the percentage of objects at each stage."""
    return _differences({one.variant: (one.stages, {}) for one in conclusions if one.stages})


def _differences(variants: Mapping[str, tuple[Told, Told]]) -> Plot:
    """For each variant the differences with these names, above a line and below it."""

    def paint(axis: Any, item: tuple[str, tuple[Told, Told]]) -> None:
        variant, (above, below) = item
        rows = [*above.items(), *below.items()]
        axis.set_xlim(limits(difference for _, difference in rows))
        axis.axvline(0, color=COLOURS['grey'], linewidth=1.5, zorder=1)
        for y, (_, difference) in enumerate(rows):
            is_told = difference.q is not None and difference.q <= 0.05
            colour = COLOURS['blue' if is_told else 'grey']
            _interval(axis, y, difference.mean, difference.interval, colour, linewidth=3, marker='D', markersize=5)
        if above and below:
            axis.axhline(len(above) - 0.5, color=COLOURS['grey'], linewidth=0.8, alpha=0.6)
        axis.set_yticks(range(len(rows)), short([name for name, _ in rows]))
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set(ylim=(len(rows) - 0.5, -0.5), title=short([variant])[0])
        axis.grid(axis='y', visible=False)

    most = max((len(above) + len(below) for above, below in variants.values()), default=0)
    return _panels(list(variants.items()), paint, 0.7 + 0.2 * most, columns=2)


def errors(base: Conclusion, conclusions: Sequence[Conclusion]) -> Plot:
    """For each variant the AP that every kind of error costs, beside the base."""

    def paint(axis: Any, one: Conclusion) -> None:
        kinds = list(base.errors)
        places = np.arange(len(kinds))
        for shift, of, look in ((-0.2, base, BASE), (0.2, one, VARIANT)):
            axis.barh(places + shift, [of.errors.get(kind, 0.0) for kind in kinds], 0.4, **look)
        axis.set_yticks(places, kinds)
        axis.set(ylim=(len(kinds) - 0.5, -0.5), title=short([one.variant])[0])
        axis.grid(axis='y', visible=False)

    return _panels([one for one in conclusions if one.errors], paint, 2.3, same='x')


def bands(base: str, curves: Mapping[str, Curves]) -> Plot:
    """A logged number over the iterations, each variant beside the base."""

    def paint(axis: Any, name: str) -> None:
        for of, look in ((base, BASE), (name, VARIANT)):
            _band(axis, curves[of], **look)
        axis.set(title=short([name])[0], xlabel='iteration')

    return _panels([name for name in curves if name != base] or [base], paint, 2.3, same='y')


def _band(axis: Any, curves: Curves, color: str, label: str) -> None:
    """The mean of the finished runs and their range; other runs as they are."""
    iterations, values = curves.shared
    if iterations:
        axis.plot(iterations, values.mean(axis=0), color=color, label=label, marker='o', markersize=2.5)
        axis.fill_between(iterations, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, linewidth=0)
    for run in curves.unfinished:
        axis.plot(list(run), list(run.values()), color=color, linewidth=0.8, linestyle='--')


def _panels(
    items: Sequence[Any], paint_one: Callable[[Any, Any], None], height: float, *, columns: int = 3, same: str = ''
) -> Plot:
    """A small plot for each item, beside and below each other. All have the same axis ``same``, 'x' or 'y'."""
    columns = max(1, min(columns, len(items)))
    rows = math.ceil(len(items) / columns)

    def paint(axes: Any) -> None:
        first, *others = np.atleast_1d(axes).flat
        for axis in others if same else ():
            getattr(axis, f'share{same}')(first)
        for axis, item in zip((first, *others), items, strict=False):
            paint_one(axis, item)
        for axis in (first, *others)[len(items) :]:
            axis.set_axis_off()
        if (handles := first.get_legend_handles_labels())[0]:
            first.figure.legend(*handles, loc='outside upper center', ncols=2, fontsize='small')

    return Plot(paint, (9.0, 0.3 + height * rows), rows, columns)
