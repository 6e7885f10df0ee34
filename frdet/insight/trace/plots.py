"""The plots of a trace; ``frdet.insight.plots`` draws them."""

import re
from collections.abc import Sequence
from typing import Any

from frdet.insight.plots import COLOURS, Plot
from frdet.insight.trace.model import FOUND, Help, Summary
from frdet.insight.trace.sentences import percent

# In grey, what is on its way is light, what is lost is dark and hatched.
ON_ITS_WAY, LOST, LAST = '#bfd3f6', '#b91c1c', '#15803d'
_PATH = re.compile(r'(\w+\.)+(?=[a-z_])')  # of a config key


def funnel(summary: Summary) -> Plot:
    """The objects that are still on their way after each stage, and those that it lost."""
    total, names = summary.objects, [stage.name for stage in summary.stages]

    def paint(axis: Any) -> None:
        left = total
        for row, name in enumerate(names):
            count = summary.counts[name]
            is_found = name == FOUND
            left -= 0 if is_found else count
            axis.barh(row, left, color=LAST if is_found else ON_ITS_WAY, height=0.78)
            text = f'{count:,} ({percent(count, total)})'
            if not is_found:
                axis.barh(row, count, left=left, color=LOST, height=0.78, hatch='////', edgecolor='white', linewidth=0)
                text = f'−{text}' if count else '0'
            axis.text(left + (0 if is_found else count) + total * 0.01, row, text, va='center', fontsize='small')
        axis.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, max(total, 1) * 1.18), xlabel='objects')
        axis.set_yticks(range(len(names)), names)
        axis.tick_params(axis='y', length=0)
        axis.grid(axis='y', visible=False)

    return Plot(paint, (8.0, 0.8 + 0.3 * len(names)))


def gains(helps: Sequence[Help]) -> Plot:
    """The gain in recall of every change with its interval; grey: within noise."""

    def paint(axis: Any) -> None:
        for row, one in enumerate(helps):
            colour = COLOURS['grey'] if one.is_noise else COLOURS['green'] if one.gain > 0 else COLOURS['red']
            axis.plot([100 * end for end in one.interval], [row, row], color=colour, linewidth=3)
            axis.plot(100 * one.gain, row, color=colour, marker='o' if one.is_noise else 'D', markersize=8)
        axis.axvline(0, color=COLOURS['grey'], linewidth=1.5, zorder=1)
        axis.set(ylim=(len(helps) - 0.5, -0.5), xlabel='gain in recall, in points of a hundred')
        # The last word of a key is enough: the table has all of it.
        names = [f'{one.stage}\n{re.sub(_PATH, "", one.change)}' for one in helps]
        axis.set_yticks(range(len(helps)), names, fontsize='small')
        axis.grid(axis='y', visible=False)

    return Plot(paint, (7.6, 0.9 + 0.45 * len(helps)))
