"""A page of what the check of data found: counts, findings by their harm, and pictures of them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from frdet.apis.checking import DataReport
from frdet.datasets.checking import ERRORS, NOTES, Place
from frdet.datasets.transforms.loading import read_image
from frdet.errors import BrokenImageError
from frdet.insight.browse import css_colour
from frdet.insight.page import Mark, Page, Row, Section
from frdet.progress import track
from frdet.visualization.drawing import shrunk

SIDE = 480  # pixels of the longer side of a picture


def write_data_page(reports: Sequence[DataReport], out: str | Path, *, source: str) -> Path:
    """Write a page of ``reports``, which ``check_data`` returns. Its pictures are read from disk.

    Args:
        out: path of the page; its folder is made if it is missing.
        source: the config or folder that was checked.

    Raises:
        ConfigError: the page cannot be written.
    """
    kinds = {kind for report in reports for kind in report.findings}
    errors = sum(kind in ERRORS for kind in kinds)
    facts = {'checked': source, 'kinds of errors': errors, 'kinds of notes': len(kinds) - errors}
    wrong = [
        f'{finding.times:,} × {kind}: {consequence}'
        for report in reports
        for severity, kind, consequence, finding in report.findings.ranked()
        if severity == 'error'
    ]
    subtitle = 'A run would stop or be wrong.' if wrong else 'Nothing stops a run or makes it wrong.'
    page = Page('What is in the data', subtitle, facts=facts, warnings=wrong)
    _add_counts(page, reports)
    _add_findings(page, reports)
    labels = list(dict.fromkeys(label for report in reports for label in report.boxes))
    for kind in track([kind for kind in (*ERRORS, *NOTES) if kind in kinds], 'Drawing examples'):
        _add_pictures(page, kind, reports, labels)
    page.write(out)
    return Path(out)


def _add_counts(page: Page, reports: Sequence[DataReport]) -> None:
    section = page.section('Counts')
    files = [report for report in reports if report.folder]
    rows = [(', '.join(one.splits), one.ann_file, one.counts, one.folder) for one in files]
    section.table(['splits', 'annotations', 'content', 'images in'], rows, caption='Annotation files')
    classes = list(dict.fromkeys(name for report in files for name in report.boxes))
    table = sorted(([name, *(report.boxes.get(name, 0) for report in files)] for name in classes), key=_least)
    head = ['class', *(', '.join(report.splits) for report in files)]
    section.table(head, table, caption='Boxes of each class, the rarest first; crowds and ignored ones are left out')


def _least(row: Sequence[Any]) -> tuple:
    return sum(row[1:]), row[0]


def _add_findings(page: Page, reports: Sequence[DataReport]) -> None:
    section = page.section('Findings', 'The most harmful first. An error stops a run, or makes it wrong.')
    order = [*ERRORS, *NOTES]
    rows = [
        (kind, Row([severity, kind, finding.times, ', '.join(report.splits), consequence, '; '.join(finding.examples)]))
        for report in reports
        for severity, kind, consequence, finding in report.findings.ranked()
    ]
    head = ['', 'found', 'count', 'in', 'consequence', 'first examples']
    if rows:
        rows.sort(key=lambda row: order.index(row[0]))
        section.table(head, [row for _, row in rows], caption='All findings')
    else:
        section.text('Nothing to report.')


def _add_pictures(page: Page, kind: str, reports: Sequence[DataReport], labels: Sequence[str]) -> None:
    section = Section(_sentence(kind), _sentence(f'{ {**ERRORS, **NOTES}[kind] }.'), tiled=True)
    for report in reports:
        where = f'{" and ".join(report.splits)}: ' if len(reports) > 1 else ''
        for places in report.findings.pictures.get(kind, ()):
            with suppress(BrokenImageError):  # an image that is missing or broken has no picture
                pictures = [(place, *shrunk(_read(place.path), SIDE)) for place in places]
                for number, (place, image, scale) in enumerate(pictures, start=1):
                    pair = f', {number} of 2' if len(pictures) == 2 else ''
                    section.picture(image, f'{where}{Path(place.path).name}{pair}', marks=_marks(place, scale, labels))
    if section.blocks:
        page.sections.append(section)


def _read(path: str) -> np.ndarray:
    return np.ascontiguousarray(read_image(path)[:, :, ::-1])


def _marks(place: Place, scale: float, labels: Sequence[str]) -> list[Mark]:
    """Boxes of a picture that is shrunk by ``scale``. Boxes on one place have a common label."""
    written = [''] * (len(place.labels) - 1) + [' / '.join(dict.fromkeys(place.labels))]
    return [
        Mark(np.multiply(box, scale).tolist(), f'{label}\n{_text(box)}', css_colour(labels.index(label)), label=text)
        for box, label, text in zip(place.boxes, place.labels, written, strict=False)
    ]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _text(box: Sequence[float]) -> str:
    x1, y1, x2, y2 = box
    return f'{x2 - x1:.0f} x {y2 - y1:.0f} pixels at ({x1:.0f}, {y1:.0f})'
