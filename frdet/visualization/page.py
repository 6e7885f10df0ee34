"""Self-contained HTML pages: one file that needs no network, with tables, pictures, plots and toggles.

    page = Page('One training step', facts={'config': 'r18.py'}, warnings=['No box in image 7'])
    section = page.section('Anchors', 'Reference boxes at every cell.', source='Faster R-CNN, section 3.1.1')
    section.table(['level', 'anchors'], [Row(['p2', 4800], tags={'level': 'p2'})], caption='Anchors by level')
    section.picture(image, 'Anchors on the image', marks=[Mark((4, 4, 36, 36), 'IoU 0.71', tags={'level': 'p2'})])
    page.write('out.html')

Whatever has tags can be switched off: a section shows a checkbox for every value of every tag in it, and a slider where
something has a score. All text is escaped: names of classes and files may hold anything.
"""

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from frdet.errors import ConfigError

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


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """What a section's toggles show and hide.

    Attributes:
        tags: value of every tag, such as ``{'level': 'p2', 'kind': 'positive'}``; shown if none of them is off.
        score: 0 to 1; shown if the slider is not above it.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    score: float | None = None

    @property
    def attributes(self) -> Markup:
        """For the HTML element."""
        text = Markup('')
        if self.tags:
            text += Markup(' data-tags="{}"').format(json.dumps(dict(self.tags)))
        if self.score is not None:
            text += Markup(' data-score="{}"').format(f'{self.score:.4f}')
        return text


@dataclass(frozen=True)
class Mark(Tagged):
    """A box on a picture.

    Attributes:
        box: xyxy in pixels of the picture.
        tip: what hovering or the arrow keys show; lines are kept.
        colour: a name of ``COLOURS``, or any CSS colour.
        line: 'solid', 'dashed' or 'dotted'.
        label: written at the box.
    """

    box: Sequence[float]
    tip: str
    colour: str = 'blue'
    line: str = 'solid'
    label: str = ''

    @property
    def css_colour(self) -> str:
        return COLOURS.get(self.colour, self.colour)

    @property
    def xywh(self) -> list[float]:
        x1, y1, x2, y2 = (round(float(v), 1) if math.isfinite(v) else 0.0 for v in self.box)
        return [x1, y1, round(max(x2 - x1, 0.0), 1), round(max(y2 - y1, 0.0), 1)]


@dataclass(frozen=True)
class Row(Tagged):
    """A row of a table; numbers are formatted and set to the right."""

    cells: Sequence[Any]


@dataclass(frozen=True)
class Tile(Tagged):
    """A small picture of a gallery: (H, W, 3) uint8 RGB with a caption that is also its text alternative."""

    image: np.ndarray
    caption: str
    tip: str = ''


class Section:
    """A part of a page, with a heading and an entry in the contents; made by ``Page.section``.

    Args:
        title: its heading.
        text: what it shows and means, one paragraph a line.
        source: where to read on, such as a paper's section.
        off: tags that are switched off at first, such as ``{'kind': ['negative']}``.
        tiled: pictures stand two in a row where there is room.

    Attributes:
        least: where the slider of scores stands at first.
    """

    def __init__(self, title: str, text: str, source: str, off: Mapping[str, Iterable[str]], tiled: bool):
        self.title = title
        self.tiled = tiled
        self.paragraphs = [line for line in text.split('\n') if line.strip()]
        self.source = source
        self.off = {key: set(values) for key, values in off.items()}
        self.least = 0.0
        self.blocks: list[dict[str, Any]] = []

    def heading(self, text: str) -> None:
        """A heading inside the section."""
        self.blocks.append({'kind': 'heading', 'text': text})

    def text(self, text: str) -> None:
        """A paragraph."""
        self.blocks.append({'kind': 'text', 'text': text})

    def code(self, text: str, *, label: str) -> None:
        """Text as it is, such as a config; ``label`` names it for screen readers."""
        self.blocks.append({'kind': 'code', 'text': text, 'label': label})

    def table(self, head: Sequence[str], rows: Iterable[Row | Sequence[Any]], *, caption: str) -> None:
        """A table that scrolls by itself where it is wide. Numbers are formatted; None is a dash."""
        filled = [row if isinstance(row, Row) else Row(row) for row in rows]
        self.blocks.append({'kind': 'table', 'head': head, 'items': filled, 'caption': caption})

    def picture(
        self,
        image: np.ndarray,
        caption: str,
        *,
        alt: str = '',
        marks: Iterable[Mark] = (),
        lossless: bool = False,
        hides: bool = False,
    ) -> None:
        """An image (H, W, 3) uint8 RGB with marks; ``alt`` is what is seen in it, the caption where empty.

        With ``hides`` it is not shown while something is switched off and none of its marks is left.
        """
        block = {'alt': alt or caption, 'caption': caption, 'items': list(marks), 'hides': hides}
        uri = data_uri(image, lossless=lossless)
        self.blocks.append({'kind': 'picture', 'uri': uri, 'size': image.shape[1::-1], **block})

    def gallery(self, tiles: Iterable[Tile], *, caption: str) -> None:
        """Small pictures side by side."""
        self.blocks.append({'kind': 'gallery', 'items': list(tiles), 'caption': caption})

    def plot(self, svg: str, caption: str, *, alt: str = '') -> None:
        """A plot from ``frdet.visualization.plots.draw``."""
        self.blocks.append({'kind': 'plot', 'svg': Markup(svg), 'caption': caption, 'alt': alt or caption})

    @property
    def toggles(self) -> dict[str, list[tuple[str, bool]]]:
        """For every tag in the section its values, in the order they appear, and whether they are on at first."""
        found: dict[str, dict[str, bool]] = {}
        for item in self._items():
            for key, value in item.tags.items():
                found.setdefault(key, {})[value] = value not in self.off.get(key, ())
        return {key: list(values.items()) for key, values in found.items()}

    @property
    def has_scores(self) -> bool:
        """Whether a slider is of use."""
        return any(item.score is not None for item in self._items())

    def _items(self) -> list[Tagged]:
        return [item for block in self.blocks for item in block.get('items', ())]


class Page:
    """A page.

    Args:
        title: its heading.
        subtitle: a sentence under it.
        facts: what it was made from, name and value.
        warnings: sentences in a box at the top; an empty list says that nothing was found, None leaves it out.
    """

    def __init__(
        self,
        title: str,
        subtitle: str = '',
        *,
        facts: Mapping[str, Any] | None = None,
        warnings: Sequence[str] | None = None,
    ):
        self.title = title
        self.subtitle = subtitle
        self.facts = dict(facts or {})
        self.warnings = warnings
        self.sections: list[Section] = []

    def section(
        self,
        title: str,
        text: str = '',
        *,
        source: str = '',
        off: Mapping[str, Iterable[str]] | None = None,
        tiled: bool = False,
    ) -> Section:
        """A new section at the end; the arguments are those of ``Section``."""
        self.sections.append(Section(title, text, source, off or {}, tiled))
        return self.sections[-1]

    def render(self) -> str:
        """The page as HTML."""
        return self._environment.get_template('page.html').render(page=self)

    def write(self, path: str | Path) -> None:
        """Write the page; its folder is made.

        Raises:
            ConfigError: the path cannot be written.
        """
        content = self.render()
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(content, encoding='utf-8')
        except OSError as error:
            raise ConfigError(f'The page {path} cannot be written ({error.strerror}): choose another path') from None

    @cached_property
    def _environment(self) -> jinja2.Environment:
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader('frdet.visualization'),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(number=number, uri=data_uri, is_number=_is_number)
        return environment


def number(value: Any) -> str:
    """Text of a table's cell: counts with separators, other numbers with 4 digits, a dash for None."""
    if value is None:
        return '–'
    if not _is_number(value) or isinstance(value, (bool, np.bool_)):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15 and not isinstance(value, (float, np.floating)):
        return f'{int(value):,}'
    return f'{float(value):.4g}'


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, np.integer, np.floating))


def data_uri(image: np.ndarray, *, lossless: bool = False) -> str:
    """(H, W, 3) uint8 RGB as an address that holds the picture: PNG if ``lossless`` or no larger, else JPEG."""
    content = {kind: io.BytesIO() for kind in ('png', 'jpeg')}
    picture = Image.fromarray(image)
    picture.save(content['png'], 'PNG')
    picture.save(content['jpeg'], 'JPEG', quality=85)
    kind = 'png' if lossless or content['png'].tell() <= content['jpeg'].tell() else 'jpeg'
    return f'data:image/{kind};base64,{base64.b64encode(content[kind].getvalue()).decode()}'
