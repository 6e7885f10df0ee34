"""The objects of a trace as compact columns for its page, and their counts by stage and group.

A page holds tens of thousands of objects. Names are therefore written once, and rows hold their places; numbers are
rounded; of the clause ``why`` a row holds the numbers, and the words between them are written once.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frdet.insight.trace.model import OBJECT_COLUMNS, OBJECTS, Summary, read_rows

MOST = 40_000  # objects in a page; with more, the page has every second, third, ... of them
NUMBERS = tuple(name for name, kind in OBJECT_COLUMNS.items() if kind is not str)
_DIGITS = dict.fromkeys(('left', 'top', 'width', 'height', 'network_size'), 1)  # of pixels; others have three
GAP = '\0'  # stands for a number in ``Rows.words``; no text of a CSV file has it
_NUMBER = re.compile(r'\d+(?:\.\d+)?')
SIZES = ('small', 'medium', 'large')
SHAPES = ('wide: w/h above 2', 'between', 'tall: h/w above 2')
CROWDS = ('alone: IoU 0', 'below 0.2', '0.2 to 0.5', 'from 0.5')


@dataclass(frozen=True)
class Split:
    """The objects in groups.

    Attributes:
        name: what makes the groups.
        column: the column that holds the place of an object's group; empty if there is one group only.
        groups: place in the column, name, and number of objects by stage.
    """

    name: str
    column: str
    groups: Sequence[tuple[int, str, Sequence[int]]]


@dataclass
class Rows:
    """The objects that a page shows.

    Attributes:
        columns: the columns of ``objects.csv`` and the places of groups, a value for each object; a column without
            any number is empty.
        images: ids and files; the column ``image`` holds places.
        classes: names; the columns ``class`` and ``other_class`` hold places, -1 for none.
        words: clauses with ``GAP`` in place of every number; the column ``why`` holds a place and the numbers.
        splits: of all objects, those that the page lacks included.
        total: number of all objects.
        place: of every object in the page, by image and id: its row.
    """

    columns: dict[str, list[Any]]
    images: list[tuple[str, str]]
    classes: list[str]
    words: list[str]
    splits: list[Split]
    total: int
    place: dict[tuple[str, str], int] = field(repr=False)


def read_objects(folder: Path, summary: Summary, wanted: Mapping[tuple[str, str], Any]) -> Rows:
    """Read ``objects.csv``. Objects in ``wanted``, by image and id, are in the page in any case."""
    stages = {stage.name: place for place, stage in enumerate(summary.stages)}
    classes = {name: label for label, name in enumerate(summary.classes)}
    images: dict[tuple[str, str], int] = {}
    words: dict[str, int] = {}
    counts: dict[str, Counter] = {name: Counter() for name in ('', 'size', 'class', 'shape', 'crowd')}
    columns: dict[str, list[Any]] = {}
    place: dict[tuple[str, str], int] = {}
    every = math.ceil(summary.objects / MOST)
    for number, row in enumerate(read_rows(folder / OBJECTS, OBJECT_COLUMNS)):
        stage, why, key = stages[row['stage']], row['why'], (row['image'], row['id'])
        groups = {
            'size': SIZES.index(row['size']),
            'class': _place(classes, row['class']),
            'shape': _shape(row['width'], row['height']),
            'crowd': _crowd(row['crowding']),
        }
        for name, count in counts.items():
            count[groups.get(name, 0), stage] += 1
        if number % every and key not in wanted:
            continue
        place[key] = len(columns.get('id', ()))  # ids may come twice in a file with mistakes
        values = {
            'id': row['id'],
            'image': _place(images, (row['image'], row['file'])),
            'stage': stage,
            'why': ' '.join([str(_place(words, _NUMBER.sub(GAP, why))), *_NUMBER.findall(why)]),
            'other_class': _place(classes, row['other_class']) if row['other_class'] else -1,
            **groups,
            **{name: _short(row[name], _DIGITS.get(name, 3)) for name in NUMBERS},
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    columns = {name: [] if all(value is None for value in values) else values for name, values in columns.items()}
    splits = _splits(counts, list(classes), len(stages))
    return Rows(columns, list(images), list(classes), list(words), splits, sum(counts[''].values()), place)


def _place(places: dict[Any, int], name: Any) -> int:
    """The place of a name, which is added if it is new."""
    return places.setdefault(name, len(places))


def _splits(counts: Mapping[str, Counter], classes: Sequence[str], stages: int) -> list[Split]:
    """The objects by every column of groups; those classes stand first of which the last stage, found, has least."""

    def groups(column: str, names: Sequence[str]) -> list[tuple[int, str, Sequence[int]]]:
        rows = [[counts[column][place, stage] for stage in range(stages)] for place in range(len(names))]
        return [(place, name, row) for place, (name, row) in enumerate(zip(names, rows, strict=True)) if any(row)]

    return [
        Split('all', '', groups('', ['all objects'])),
        Split('size', 'size', groups('size', SIZES)),
        Split('class', 'class', sorted(groups('class', classes), key=lambda group: group[2][-1] / sum(group[2]))),
        Split('aspect ratio', 'shape', groups('shape', SHAPES)),
        Split('crowding', 'crowd', groups('crowd', CROWDS)),
    ]


def _shape(width: float, height: float) -> int:
    return 0 if width > 2 * height else 2 if height > 2 * width else 1


def _crowd(iou: float | None) -> int:
    return 0 if not iou else 1 if iou < 0.2 else 2 if iou < 0.5 else 3


def _short(value: float | None, digits: int) -> float | None:
    """A number with few letters in JSON; what is not finite, which JSON does not have, is unknown."""
    if value is None or not math.isfinite(value):
        return None
    short = round(value, digits)
    return int(short) if short == int(short) else short
