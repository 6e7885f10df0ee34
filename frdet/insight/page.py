"""HTML pages in one file that needs no network, with tables, pictures, plots and checkboxes.

    page = Page('One training step', facts={'config': 'r18.py'}, warnings=['No box in image 7'])
    section = page.section('Anchors', 'Reference boxes at every cell.', source='Faster R-CNN, section 3.1.1')
    section.table(['level', 'anchors'], [Row(['p2', 4800], tags={'level': 'p2'})], caption='Anchors by level')
    section.picture(image, 'Anchors on the image', marks=[Mark((4, 4, 36, 36), 'IoU 0.71', tags={'level': 'p2'})])
    page.write('out.html')

A section shows a checkbox for each value of each tag in it, which hides the items with this value. It shows a slider if
an item has a score. ``legend`` names the tag that the colours and lines of marks stand for; its checkboxes show them.
All text is escaped: names of classes and files may hold anything.
"""

import base64
import io
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from PIL import Image

from frdet.errors import ConfigError
from frdet.insight.plots import COLOURS, Plot, draw


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """An item that the checkboxes and the slider of a section show or hide.

    Attributes:
        tags: value of every tag, such as ``{'level': 'p2', 'kind': 'positive'}``; any value that is off hides the item.
        score: 0 to 1; a slider above it hides the item.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    score: float | None = None

    @property
    def attributes(self) -> dict[str, str | None]:
        """Attributes of the HTML element; None is one that it does not get."""
        tags = json.dumps(dict(self.tags)) if self.tags else None
        return {'data-tags': tags, 'data-score': None if self.score is None else f'{self.score:.4f}'}


@dataclass(frozen=True)
class Mark(Tagged):
    """A box on a picture.

    Attributes:
        box: xyxy in pixels of the picture.
        tip: text shown by hovering or the arrow keys; line breaks are kept.
        colour: a name of ``COLOURS``, or any CSS colour.
        line: 'solid', 'dashed', 'dotted' or 'dashdot'.
        label: written at the box.
        outline: the mask of the object, as ``outline_of`` writes it.
    """

    box: Sequence[float]
    tip: str
    colour: str = 'blue'
    line: str = 'solid'
    label: str = ''
    outline: str = ''

    @property
    def css_colour(self) -> str:
        return COLOURS.get(self.colour, self.colour)

    @property
    def xywh(self) -> list[float]:
        x1, y1, x2, y2 = (round(float(v), 1) if math.isfinite(v) else 0.0 for v in self.box)
        return [x1, y1, round(max(x2 - x1, 0.0), 1), round(max(y2 - y1, 0.0), 1)]


@dataclass(frozen=True)
class Link:
    """A cell of a table that leads to another page; ``href`` is a relative path, quoted as in a URL, or http(s)."""

    text: str
    href: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r'https?://[!-~]+|[\w.~%-][\w.~%/-]*', self.href, re.ASCII):
            raise ValueError(f'{self.href!r} is neither a quoted relative path nor a web address')

    @classmethod
    def to(cls, path: Path, folder: Path, text: str) -> 'Link':
        """A link from a page in ``folder`` to a file."""
        return cls(text, quote(Path(os.path.relpath(path, folder)).as_posix()))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Row(Tagged):
    """A row of a table; numbers are formatted, a column of numbers is aligned to the right."""

    cells: Sequence[Any]


@dataclass(frozen=True)
class Tile(Tagged):
    """A small picture of a gallery, (H, W, 3) uint8 RGB; its caption is also its text alternative."""

    image: np.ndarray
    caption: str
    tip: str = ''


@dataclass
class Section:
    """A part of a page with a heading and an entry in the contents. ``Page.section`` makes it.

    Attributes:
        title: its heading.
        about: an explanation of its content; each line is a paragraph.
        source: where to read more, such as a section of a paper.
        off: tags that are switched off at first, such as ``{'kind': ['negative']}``.
        legend: the tag whose values the colours or lines of marks stand for, such as 'kind'.
        tiled: whether two pictures stand in a row if there is room.
        least: the score that the slider has at first.
        blocks: its content, in order.
    """

    title: str
    about: str = ''
    source: str = ''
    off: Mapping[str, Collection[str]] = field(default_factory=dict)
    legend: str = ''
    tiled: bool = False
    least: float = 0.0
    blocks: list[dict[str, Any]] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """A heading inside the section."""
        self.blocks.append({'kind': 'heading', 'text': text})

    def text(self, text: str) -> None:
        """A paragraph."""
        self.blocks.append({'kind': 'text', 'text': text})

    def code(self, text: str, *, label: str) -> None:
        """Text that is shown unchanged, such as a config; ``label`` names it for screen readers."""
        self.blocks.append({'kind': 'code', 'text': text, 'label': label})

    def table(self, head: Sequence[str], rows: Iterable[Row | Sequence[Any]], *, caption: str) -> None:
        """A table; a wide one scrolls. Numbers are formatted, None is shown as a dash, a ``Link`` can be followed."""
        filled = [row if isinstance(row, Row) else Row(row) for row in rows]
        columns = zip(*(row.cells for row in filled), strict=True)
        right = [all(_reads_as_number(cell) for cell in column) for column in columns] or [False] * len(head)
        titles = list(zip(head, right, strict=True))
        self.blocks.append({'kind': 'table', 'head': head, 'titles': titles, 'items': filled, 'caption': caption})

    def picture(self, image: np.ndarray, caption: str, *, marks: Iterable[Mark] = (), filtered: bool = False) -> None:
        """An image (H, W, 3) uint8 RGB with marks; its caption is also its text alternative.

        A ``filtered`` image is hidden while a checkbox is off and none of its marks is shown.
        """
        block = {'uri': data_uri(image), 'caption': caption, 'items': list(marks), 'size': image.shape[1::-1]}
        self.blocks.append({'kind': 'picture', 'filtered': filtered, **block})

    def gallery(self, tiles: Iterable[Tile], *, caption: str) -> None:
        """Small pictures side by side."""
        self.blocks.append({'kind': 'gallery', 'items': list(tiles), 'caption': caption})

    def plot(self, plot: Plot, caption: str, *, alt: str = '') -> None:
        """A plot, which is drawn when the page is rendered; ``alt`` describes it (the caption if empty)."""
        self.blocks.append({'kind': 'plot', 'plot': plot, 'caption': caption, 'alt': alt or caption})

    def part(self, template: str, **values: Any) -> None:
        """What only one page has: a file of ``templates``, which sees ``values`` as attributes of ``block``."""
        self.blocks.append({'kind': 'part', 'template': template, **values})

    @property
    def toggles(self) -> dict[str, dict[str, bool]]:
        """For every tag in the section its values, in the order they appear, and whether they are on at first."""
        found: dict[str, dict[str, bool]] = {}
        for item in self._items():
            for key, value in item.tags.items():
                found.setdefault(key, {})[value] = value not in self.off.get(key, ())
        return found

    def swatch(self, key: str, value: str) -> Mark | None:
        """A mark that looks like all marks with this tag; it has the colour of the text if their colours differ.

        None if the section's legend is another tag, if no mark has this tag, or if their lines differ.
        """
        marks = [m for m in self._items() if isinstance(m, Mark) and m.tags.get(key) == value]
        if key != self.legend or len({mark.line for mark in marks}) != 1:
            return None
        colours = {mark.css_colour for mark in marks}
        return replace(marks[0], colour=colours.pop() if len(colours) == 1 else 'currentColor')

    @property
    def has_scores(self) -> bool:
        """Whether an item has a score, so that a slider is useful."""
        return any(item.score is not None for item in self._items())

    def _items(self) -> list[Tagged]:
        return [item for block in self.blocks for item in block.get('items', ())]


@dataclass
class Page:
    """A page.

    Attributes:
        title: its heading.
        subtitle: a sentence under it.
        facts: names and values of the inputs of the page.
        warnings: sentences in a box at the top; an empty list says that nothing was found, None leaves out the box.
        sections: its parts, in order.
        extra: 'trace' adds ``trace.css`` and ``trace.js`` of ``templates``.
    """

    title: str
    subtitle: str = ''
    facts: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    warnings: Sequence[str] | None = field(default=None, kw_only=True)
    sections: list[Section] = field(default_factory=list, kw_only=True)
    extra: str = field(default='', kw_only=True)

    def section(self, title: str, about: str = '', **options: Any) -> Section:
        """A new section at the end; ``options`` are attributes of ``Section``."""
        self.sections.append(Section(title, about, **options))
        return self.sections[-1]

    def render(self) -> str:
        """The page as HTML. A picture that is shown several times with other marks is stored once."""
        names: dict[str, str] = {}
        for block in (block for section in self.sections for block in section.blocks if block['kind'] == 'picture'):
            block['is_first'] = block['uri'] not in names
            block['name'] = names.setdefault(block['uri'], f'i{len(names)}')
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader('frdet.insight'),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(number=number, uri=data_uri, draw=draw, data=_data)
        return environment.get_template('page.html').render(page=self)

    def write(self, path: str | Path) -> None:
        """Write the page; its folder is made if it is missing.

        Raises:
            ConfigError: the path cannot be written.
        """
        content = self.render()
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(content, encoding='utf-8')
        except OSError as error:
            raise ConfigError(f'The page {path} cannot be written ({error.strerror}): choose another path') from None


def number(value: Any) -> str:
    """Text of a table's cell: integers have separators, other numbers three digits, None is a dash."""
    if value is None:
        return '–'
    if isinstance(value, bool) or not _is_number(value):
        return str(value)
    if isinstance(value, (int, np.integer)) and abs(int(value)) < 1e15:
        return f'{int(value):,}'
    return f'{float(value):,.0f}' if 999.5 <= abs(value) < 1e15 else f'{float(value):.3g}'


def _data(value: Any) -> str:
    """JSON for a script element, which no text in it can end."""
    return json.dumps(value, ensure_ascii=False, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, np.integer, np.floating))


def _reads_as_number(value: Any) -> bool:
    """Whether a column of such cells is aligned to the right: numbers, '+0.01', '13.1%', and nothing."""
    return _is_number(value) or bool(isinstance(value, str) and re.fullmatch(r'([+-]?\d[\d.,]*(e-?\d+)? ?%?)?', value))


def data_uri(image: np.ndarray) -> str:
    """An image (H, W, 3) uint8 RGB as a data URI: PNG if that is not larger than JPEG, else JPEG."""
    content = {kind: io.BytesIO() for kind in ('png', 'jpeg')}
    for kind, stream in content.items():
        Image.fromarray(image).save(stream, kind, quality=85)  # PNG has no quality
    kind = 'png' if content['png'].tell() <= content['jpeg'].tell() else 'jpeg'
    return f'data:image/{kind};base64,{base64.b64encode(content[kind].getvalue()).decode()}'
