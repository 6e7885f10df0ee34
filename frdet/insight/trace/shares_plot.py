"""The plot of the shares of objects by stage, of several traces beside each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

from frdet.insight.naming import short
from frdet.insight.plots import COLOURS, Plot
from frdet.insight.trace.model import FOUND

#: Neighbours differ in their hatch, too, so that the plot is legible without colours.
HATCHES = ('', '///', '...', '\\\\\\', 'xx')
BAR = 0.62  # width of a bar; the rest of a unit is for the bands between two bars
LINE = 0.05  # of the height of the plot, for a line of text
MANY = 6  # bars, from which on their names are slanted


def shares(counts: Mapping[str, Mapping[str, int]], stages: Sequence[str]) -> Plot:
    """A bar for each trace, the found objects at its bottom and above them the lost ones, the last stage first.

    Args:
        counts: name of a trace -> number of objects by stage.
        stages: in the order of the pipeline. A stage that lost nothing in any trace is left out.
    """
    shown = [stage for stage in reversed(stages) if any(of.get(stage) for of in counts.values())]
    totals = [max(sum(of.values()), 1) for of in counts.values()]
    parts = np.array([[of.get(stage, 0) / n for of, n in zip(counts.values(), totals, strict=True)] for stage in shown])
    ends = np.cumsum(parts, axis=0)
    looks = _looks(shown)

    def paint(axis: Any) -> None:
        at, ink = np.arange(len(counts)), matplotlib.rcParams['text.color']
        for share, end, look in zip(parts, ends, looks, strict=True):
            axis.bar(at, share, BAR, end - share, linewidth=0.8, edgecolor=ink, **look)
            sides = [place + shift for place in at for shift in (-BAR / 2, BAR / 2)]
            axis.fill_between(sides, np.repeat(end - share, 2), np.repeat(end, 2), color=look['color'], alpha=0.18)
        if shown:
            middles = ends[:, -1] - parts[:, -1] / 2
            for stage, share, middle, place in zip(shown, parts[:, -1], middles, spread(middles, LINE), strict=True):
                note = dict(xytext=(1.03, place), textcoords=axis.transAxes, annotation_clip=False)
                line = dict(arrowstyle='-', color=ink, linewidth=0.7, shrinkA=0, shrinkB=0, relpos=(0, 0.5))
                text = f'{stage} {share:.1%}'
                axis.annotate(text, (at[-1] + BAR / 2, middle), **note, arrowprops=line, va='center', fontsize='small')
        slant = dict(rotation=25, ha='right') if len(at) > MANY else {}
        axis.set_xticks(at, short(list(counts)), **slant)
        axis.set(xlim=(-0.5, len(at) - 0.5), ylim=(0, 1), ylabel='share of all objects')
        axis.grid(axis='x', visible=False)

    return Plot(paint, (9.0, 4.8))


def _looks(shown: Sequence[str]) -> list[dict[str, Any]]:
    """Colour and hatch of each stage: green and plain for the found objects, which no other stage is."""
    colours = [colour for name, colour in COLOURS.items() if name != 'green']
    looks = [{'color': colours[k % len(colours)], 'hatch': HATCHES[k % len(HATCHES)]} for k in range(1, len(shown) + 1)]
    return [{'color': COLOURS['green']} if stage == FOUND else looks[k] for k, stage in enumerate(shown)]


def spread(places: np.ndarray, gap: float) -> np.ndarray:
    """Ascending places, moved up to a distance of at least ``gap``, and down where they would go beyond 1."""
    count = len(places)
    moved = np.maximum.accumulate(places - gap * np.arange(count)) + gap * np.arange(count)
    most = 1 - gap * np.arange(count)[::-1]  # the highest place that leaves room for those above
    return np.minimum(moved, most)
