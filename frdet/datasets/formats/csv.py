"""Tables of boxes: a line for every box."""

import csv
import os
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import isfinite
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from frdet.datasets.annotations import Annotations, short
from frdet.datasets.base import DetDataset
from frdet.datasets.formats.sizes import image_records
from frdet.errors import ConfigError
from frdet.progress import Bar
from frdet.registry import DATASETS

DELIMITERS = ',;\t|'
LOOKED_AT = 20  # lines that tell the delimiter
BLOCK = 100_000  # lines between two steps of the bar


class Columns(TypedDict, total=False):
    """Name of each column in the header; or, in a table without a header, its position from 0.

    A box is ``x1, y1, x2, y2``, or ``x, y, w, h``, or one cell ``bbox``, ``[x, y, w, h]``. ``width`` and ``height`` are
    those of the image.
    """

    image: str | int
    label: str | int
    x1: str | int
    y1: str | int
    x2: str | int
    y2: str | int
    x: str | int
    y: str | int
    w: str | int
    h: str | int
    bbox: str | int
    width: str | int
    height: str | int
    part: str | int


#: Names of columns that tools write, in small letters without other characters.
KNOWN = {
    'image': ('filename', 'imageid', 'image', 'imagename', 'imagepath', 'path', 'filepath', 'file', 'img'),
    'label': ('class', 'label', 'labelname', 'classname', 'category', 'categoryname'),
    'x1': ('xmin', 'x1', 'left', 'bboxxmin'), 'y1': ('ymin', 'y1', 'top', 'bboxymin'),
    'x2': ('xmax', 'x2', 'right', 'bboxxmax'), 'y2': ('ymax', 'y2', 'bottom', 'bboxymax'),
    'x': ('x', 'bboxx'), 'y': ('y', 'bboxy'), 'w': ('w', 'bboxwidth', 'bboxw', 'boxwidth'),
    'h': ('h', 'bboxheight', 'bboxh', 'boxheight'),
    'bbox': ('bbox', 'box'), 'width': ('width', 'imagewidth', 'imgwidth'),
    'height': ('height', 'imageheight', 'imgheight'), 'part': ('split', 'subset', 'set'),
}  # fmt: skip
CORNERS, SIZED = ('x1', 'y1', 'x2', 'y2'), ('x', 'y', 'w', 'h')
RETINANET = dict(image=0, x1=1, y1=2, x2=3, y2=4, label=5)
OPEN_IMAGES = {'imageid', 'labelname', 'xmin', 'xmax', 'ymin', 'ymax'}
EXPECTED = (
    'expected RetinaNet (path,x1,y1,x2,y2,class without a header), or a header such as '
    'filename,width,height,class,xmin,ymin,xmax,ymax or image_id,width,height,bbox; or name them with '
    "columns=dict(image='...', label='...', x1='...', ...)"
)
PARTS = {'train': ('train', 'training'), 'val': ('val', 'valid', 'validate', 'validation'), 'test': ('test',)}


class Layout(NamedTuple):
    """How a table is written.

    Attributes:
        delimiter, encoding: of the file.
        has_header: whether the first line names the columns.
        columns: position of each column that is read.
        fractions: whether boxes may be fractions of the image, as in Open Images.
    """

    delimiter: str
    encoding: str
    has_header: bool
    columns: dict[str, int]
    fractions: bool

    @property
    def box(self) -> list[int]:
        """Positions of the four numbers of a box; of one cell that has them all."""
        for names in (CORNERS, SIZED):
            if set(names) <= self.columns.keys():
                return [self.columns[name] for name in names]
        return [self.columns['bbox']]


class Table(NamedTuple):
    """The content: images with (height, width) or None, class names, and for M boxes two positions and four numbers.

    ``parts`` are the parts of ``PARTS`` that some line belongs to.
    """

    parts: list[str]
    images: dict[str, tuple[int, int] | None]
    classes: dict[str, int]
    image_index: np.ndarray
    category_index: np.ndarray
    boxes: np.ndarray


@DATASETS.register_module()
class CsvDataset(DetDataset):
    """Images and boxes of a table, ``.csv`` or ``.tsv``; classes in the order of their names.

    The delimiter, the header and these columns are recognised: those of RetinaNet, TensorFlow, Kaggle (``bbox`` is
    ``[x, y, width, height]``) and Open Images (fractions of the image). Coordinates are continuous: a box ends at its
    ``xmax``. A line with an empty box is an image without objects. Without a column of classes there is one class,
    that of ``metainfo.classes``, or ``object``. A name of an image may lack its ending, and is its id. Sizes that the
    table does not have are read from the images.

    Args:
        columns: names or positions of columns with other names; see ``Columns``.
        part: the lines of ``train``, ``val`` or ``test`` in the column ``part``, which is often called ``split``.
        kwargs: as of ``DetDataset``.
    """

    has_parts = True

    def __init__(self, *, columns: Columns | None = None, **kwargs: Any):
        if unknown := sorted(set(columns or {}) - set(Columns.__annotations__)):
            raise ConfigError(f'columns has {", ".join(unknown)}: it takes {", ".join(Columns.__annotations__)}')
        self.columns = columns or {}
        super().__init__(**kwargs)

    def read(self) -> Annotations:
        """Read the table line by line: of a gigabyte only the numbers of the boxes are kept."""
        layout = recognise_table(self.ann_file, self.columns)
        given = self._metainfo.get('classes') or []
        on_mistake = partial(self.on_mistake, 'wrong annotation') if self.on_mistake is not None else None
        table = read_table(self.ann_file, layout, self.part, given[0] if len(given) == 1 else 'object', on_mistake)
        if not table.images:
            raise ValueError(f'it has no image{f" of the part {self.part!r}" if self.part else ""}')
        known = {name: size for name, size in table.images.items() if size is not None}
        records = image_records(self, list(table.images), known)
        index, category, boxes = table.image_index, table.category_index, table.boxes
        if len(records) < len(table.images):
            place_of = {name: place for place, name in enumerate(records)}
            index = np.array([place_of.get(name, -1) for name in table.images])[index]
            kept = index >= 0
            index, category, boxes = index[kept], category[kept], boxes[kept]
        if layout.fractions and (not len(boxes) or boxes.max() <= 1):
            sizes = np.array([(image['width'], image['height']) for image in records.values()])
            boxes *= np.tile(sizes, 2)[index]
        names = sorted(table.classes)
        if not names:
            raise ValueError('it has no box')
        rank = {table.classes[name]: place for place, name in enumerate(names)}
        return Annotations(
            images=list(records.values()),
            categories={name: number for number, name in enumerate(names, start=1)},
            image_index=index,
            category_index=np.array([rank[k] for k in range(len(names))])[category],
            **{'boxes' if set(CORNERS) <= layout.columns.keys() else 'xywh': boxes},
        )


def recognise_table(path: str | Path, columns: Columns | None = None) -> Layout:
    """How the table at ``path`` is written. ``columns`` are names or positions that are known.

    Raises:
        ValueError: it is no text, is empty, or lacks a column of the images or boxes.
    """
    with open(path, 'rb') as binary:
        start = binary.read(4)
    if start.startswith((b'\x1f\x8b', b'PK')):
        raise ValueError('it is compressed: unpack it')
    encoding = 'utf-16' if start[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    with _opened(path, encoding) as file:
        lines = [line for _, line in zip(range(LOOKED_AT), file, strict=False) if line.strip()]
    if not lines:
        raise ValueError('it is empty')
    delimiter = max(DELIMITERS, key=lambda one: min(len(row) for row in csv.reader(lines, delimiter=one) if row))
    first = next(csv.reader(lines, delimiter=delimiter))
    if not columns and len(first) == 6 and all(re.fullmatch(r'\s*-?[\d.]*\s*', cell) for cell in first[1:5]):
        return Layout(delimiter, encoding, False, dict(RETINANET), False)
    plain = [re.sub('[^a-z0-9]', '', cell.lower()) for cell in first]
    found: dict[str, int] = {}
    for role, names in KNOWN.items():
        place = next((plain.index(name) for name in names if name in plain), None)
        if place is not None:
            found[role] = place
    if {'x', 'y', 'width', 'height'} <= found.keys() and 'w' not in found and 'x2' not in found:
        found.update(w=found.pop('width'), h=found.pop('height'))
    for role, column in (columns or {}).items():
        if isinstance(column, str) and column not in first:
            raise ValueError(f'it has no column {column!r}, but {", ".join(first[:12])}')
        found[role] = first.index(column) if isinstance(column, str) else int(column)  # type: ignore[call-overload]
    has_box = any(set(names) <= found.keys() for names in (CORNERS, SIZED, ('bbox',)))
    if 'image' not in found or not has_box or max(found.values()) >= len(first):
        hint = (
            '. It is the table of the VGG Image Annotator: export COCO there'
            if 'regionshapeattributes' in plain
            else ''
        )
        raise ValueError(f'it has the columns {", ".join(first[:12])}{hint}; {EXPECTED}')
    has_header = not columns or any(isinstance(column, str) for column in columns.values())
    return Layout(delimiter, encoding, has_header, found, set(plain) >= OPEN_IMAGES)


def read_table(
    path: str | Path,
    layout: Layout,
    part: str | None = None,
    only_class: str = 'object',
    on_mistake: Callable[[str], Any] | None = None,
) -> Table:
    """Read the lines of ``part``, or all. Memory grows with the boxes by 40 bytes each, and with the images.

    Args:
        only_class: the class in a table without a column of classes.
        on_mistake: gets a message for each line that is wrong and left out; None: the first one is an error.

    Raises:
        ValueError: a line has too few cells or no numbers, or there is no column of the parts.
    """
    columns = layout.columns
    if part is not None and 'part' not in columns:
        raise ValueError(f'part is {part!r}, and it has no column split')
    wanted = PARTS.get(str(part), (part,))
    seen: set[str] = set()
    images: dict[str, int] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    classes: dict[str, int] = {}
    index, category, numbers = array('i'), array('i'), array('d')
    image_at, label_at, part_at = columns['image'], columns.get('label'), columns.get('part')
    size_at = (columns['height'], columns['width']) if {'height', 'width'} <= columns.keys() else None
    box_of = itemgetter(*layout.box)  # of one column it gives the cell itself
    is_cell, done, width = len(layout.box) == 1, 0, max(columns.values()) + 1
    with _opened(path, layout.encoding) as file, Bar('Reading the table', os.path.getsize(path), delay=2) as bar:
        rows = csv.reader(file, delimiter=layout.delimiter)
        if layout.has_header:
            next(rows)
        for number, row in enumerate(rows, start=1):
            if number % BLOCK == 0:
                bar.advance(-done + (done := file.buffer.tell()))
            if not row:
                continue
            try:
                box = box_of(row)
                has_box = ''.join(box).strip()
                name = only_class if label_at is None else row[label_at].strip()
                if has_box:
                    if not name:
                        raise ValueError('the class is empty')
                    kind = classes.setdefault(name, len(classes))
                if part_at is not None:
                    seen.add(own := row[part_at].strip().lower())
                    if part is not None and own not in wanted:
                        continue
                image = row[image_at].strip()
                if image not in images:
                    sizes[image] = _size(row, size_at)
                    images[image] = len(images)
                if has_box:
                    numbers.extend(_cell(box) if is_cell else _finite(box))
                    index.append(images[image])
                    category.append(kind)
            except (IndexError, ValueError) as error:
                why = error if isinstance(error, ValueError) else f'it has {len(row)} cells, expected {width} or more'
                mistake = f'line {rows.line_num}, {short(layout.delimiter.join(row))}: {why}'
                if on_mistake is None:
                    raise ValueError(mistake) from None
                on_mistake(mistake)
    boxes = np.frombuffer(numbers, dtype=np.float64).reshape(-1, 4)
    parts = [name for name, words in PARTS.items() if seen.intersection(words)]
    return Table(parts, sizes, classes, np.frombuffer(index, np.int32), np.frombuffer(category, np.int32), boxes)


def _size(row: Sequence[str], at: tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) in a row, or None."""
    if at is None or not all(row[one].strip() for one in at):
        return None
    height, width = (float(row[one]) for one in at)
    return (int(height), int(width)) if height >= 1 and width >= 1 and isfinite(height + width) else None


def _cell(text: str) -> list[float]:
    """The numbers of a cell such as ``[1, 2, 3, 4]``."""
    words = re.split(r'[\s,;]+', text.strip(' []()'))
    if len(words) != 4:
        raise ValueError('expected a box [x, y, width, height]')
    return _finite(words)


def _finite(words: Sequence[str]) -> list[float]:
    numbers = [float(word) for word in words]
    if not isfinite(sum(numbers)):
        raise ValueError('expected finite numbers')
    return numbers


@contextmanager
def _opened(path: str | Path, encoding: str) -> Iterator[Any]:
    try:
        with open(path, encoding=encoding, newline='') as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(f'it is no text in {encoding} ({error.reason}): save it as UTF-8') from None
    except csv.Error as error:
        raise ValueError(f'it is no table ({error})') from None
