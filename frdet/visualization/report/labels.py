"""Label statistics of a data set on a page."""

from collections.abc import Mapping
from typing import Any

from frdet.visualization.page import Section
from frdet.visualization.plots import draw
from frdet.visualization.report import figures


def show_labels(section: Section, name: str, statistics: Mapping[str, Any]) -> None:
    """Plots and a table of the classes; ``name`` is that of the data."""
    section.heading(f'{name.capitalize()}: {statistics["num_images"]:,} images')
    paint, size, rows, columns = figures.labels(statistics)
    section.plot(draw(paint, size=size, rows=rows, columns=columns), f'Labels of the {name} data')
    head = ('objects', 'images', 'small', 'medium', 'large')
    cells = zip(statistics['classes'], *(statistics[column] for column in head), strict=True)
    section.table(['class', *head], [list(row) for row in cells], caption=f'Classes of the {name} data')
