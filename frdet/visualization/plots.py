"""Plots in the style of the pages: SVG whose text follows a light or a dark page."""

import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from frdet.visualization.fonts import PLOTS, font_families
from frdet.visualization.page import COLOURS

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


def draw(
    paint: Callable[[Any], None], *, size: tuple[float, float] = (7.0, 3.0), rows: int = 1, columns: int = 1
) -> str:
    """A plot as SVG, for ``Section.plot``.

    Args:
        paint: draws on the matplotlib axes it is given: one, or an array of them where there are more.
        size: width and height in inches of 96 pixels.
        rows, columns: of the grid of axes.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(_STYLE), _painted(paint, size, rows, columns) as figure:
        FigureCanvasSVG(figure).print_svg(stream, metadata=dict.fromkeys(('Creator', 'Date', 'Format', 'Type')))
    svg = stream.getvalue()
    svg = svg[svg.index('<svg') :].replace(_INK, 'currentColor')
    # Several plots in one page must not share names.
    prefix = f'plot{next(_count)}-'
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(url\(|href=")#', rf'\1#{prefix}', svg)


def save(
    paint: Callable[[Any], None],
    path: str | Path,
    *,
    size: tuple[float, float] = (7.0, 3.0),
    rows: int = 1,
    columns: int = 1,
) -> None:
    """The same plot on white, as PNG, SVG or PDF by the ending of ``path``; the arguments are those of ``draw``."""
    on_white = {key: '#1b1f24' if value == _INK else value for key, value in _STYLE.items()}
    style = {**on_white, 'figure.facecolor': 'white'}
    with matplotlib.rc_context(style), _painted(paint, size, rows, columns) as figure:
        figure.savefig(path)


@contextmanager
def _painted(paint: Callable[[Any], None], size: tuple[float, float], rows: int, columns: int) -> Iterator[Figure]:
    """A figure, and within the context the fonts that it needs."""
    figure = Figure(figsize=size)
    paint(figure.subplots(rows, columns))
    families = font_families(_texts(figure))
    with matplotlib.rc_context({'font.family': families}), warnings.catch_warnings():
        warnings.filterwarnings(
            'ignore', 'Glyph .* missing'
        )  # the browser has fonts of its own; `legible` says it once
        if families != [PLOTS]:  # texts keep the fonts with which they were made
            figure = Figure(figsize=size)
            paint(figure.subplots(rows, columns))
        yield figure


def _texts(figure: Figure) -> list[str]:
    """All that is written on a figure; ticks have their labels from here on."""
    for axis in figure.axes:
        axis.get_xticklabels()
        axis.get_yticklabels()
    return [text.get_text() for text in figure.findobj(Text)]
