"""Plots in the style of the pages: SVG whose text follows a light or a dark page."""

import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.text import Text

from frdet.visualization.fonts import PLOTS, font_families

#: Colours that stand out from a light and from a dark page, at 3:1 or more.
COLOURS = {
    'blue': '#3b82f6',
    'orange': '#d97706',
    'green': '#16a34a',
    'red': '#ef4444',
    'purple': '#a855f7',
    'cyan': '#0891b2',
    'grey': '#7c8595',
}
_INK = '#010203'  # stands for the page's text colour
_STYLE: dict[Any, Any] = {
    'axes.facecolor': 'none',
    'axes.edgecolor': _INK,
    'axes.grid': True,
    'axes.labelcolor': _INK,
    'axes.prop_cycle': cycler(color=list(COLOURS.values())),
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlesize': 'medium',
    'figure.constrained_layout.use': True,
    'figure.facecolor': 'none',
    'font.family': [PLOTS],
    'font.size': 10,
    'grid.alpha': 0.3,
    'grid.color': COLOURS['grey'],
    'legend.frameon': False,
    'svg.fonttype': 'none',  # text stays text: it can be found and read aloud
    'text.color': _INK,
    'text.parse_math': False,  # a class may be named a$b$
    'xtick.color': _INK,
    'ytick.color': _INK,
}
_count = itertools.count()


class Plot(NamedTuple):
    """A plot that is not drawn yet."""

    paint: Callable[[Any], None]  #: draws on matplotlib axes: on one, or on an array if there is more than one
    size: tuple[float, float] = (7.0, 3.0)  #: width and height in inches of 96 pixels
    rows: int = 1  #: of the grid of axes
    columns: int = 1


def draw(plot: Plot) -> str:
    """A plot as SVG."""
    stream = io.StringIO()
    with matplotlib.rc_context(_STYLE), _painted(plot) as figure:
        FigureCanvasSVG(figure).print_svg(stream, metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
    svg = stream.getvalue()
    svg = svg[svg.index('<svg') :].replace(_INK, 'currentColor')
    # Several plots in one page must not share names.
    prefix = f'plot{next(_count)}-'
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(url\(|href=")#', rf'\1#{prefix}', svg)


def save(plot: Plot, path: str | Path) -> None:
    """Write a plot on white; the ending of ``path`` says whether as PNG, SVG or PDF."""
    on_white = {key: '#1b1f24' if value == _INK else value for key, value in _STYLE.items()}
    style = {**on_white, 'figure.facecolor': 'white'}
    with matplotlib.rc_context(style), _painted(plot) as figure:
        figure.savefig(path)


@contextmanager
def _painted(plot: Plot) -> Iterator[Figure]:
    """matplotlib's figure; the fonts that it needs are set within the context."""
    figure = Figure(figsize=plot.size)
    plot.paint(figure.subplots(plot.rows, plot.columns))
    for axis in figure.axes:  # asking for the labels of ticks makes them
        axis.get_xticklabels()
        axis.get_yticklabels()
    texts = figure.findobj(Text)
    families = font_families(text.get_text() for text in texts)
    for text in texts:
        text.set_fontfamily(families)
    with matplotlib.rc_context({'font.family': families}), warnings.catch_warnings():
        # A browser has more fonts, and `legible` has warned already.
        warnings.filterwarnings('ignore', 'Glyph .* missing')
        yield figure
