"""The section of likely label errors: a table and crops for each kind."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from frdet.insight.errors import BACKGROUND
from frdet.insight.page import Page, Section, Tile
from frdet.insight.report.label_errors import (
    CLASS,
    COLUMNS,
    FILE,
    NEAREST,
    NEVER,
    NO_OBJECT,
    PEERS,
    SAME,
    TWICE,
    TWO_CLASSES,
    VALIDATIONS,
    Suspect,
    Suspects,
    rows_of,
    trust,
)
from frdet.insight.report.pictures import pixels_of, read_picture
from frdet.insight.report.run import Analysis, Run
from frdet.visualization.drawing import draw_boxes

ROWS, CROPS = 30, 12  # of a kind that are shown
SIDE = 224  # pixels of the longer side of a crop in the page
AROUND, LEAST = 2.0, 64  # a crop is so many times as long as its box, and has so many pixels
HIDDEN = ('kind', 'x1', 'y1', 'x2', 'y2')  # columns of the file that the table lacks
#: Heads of its other columns.
TITLES = {
    'image_id': 'image',
    'file_name': 'file',
    'annotation_ids': 'annotations',
    'suggested_class': 'found as',
}
_ORDER = (
    'from score {score:.2f} on, where F1 is best. The best score comes first; the last column is the share of right '
    f'ones among the {NEAREST} detections nearest in score.'
)
#: For each kind: what is listed and in which order, and what the score in the table is.
TEXTS = {
    NO_OBJECT: (f'Detections that overlap no annotation by IoU {BACKGROUND}, {_ORDER} Is an object missing?', 'score'),
    CLASS: (
        'Annotations that no detection of their class finds, and on which one of another class lies, '
        f'{_ORDER} Is the class wrong?',
        'score',
    ),
    TWICE: (f'Two annotations of one class that overlap by more than IoU {SAME}. Is it one object?', 'IoU'),
    TWO_CLASSES: (f'Two annotations of different classes that overlap by more than IoU {SAME}.', 'IoU'),
    NEVER: (
        'Annotations that none of {validations} validations found. The suspicion is high if an object should be easy, '
        f'and nothing is detected there: the share of found ones among the {2 * PEERS} objects of the class that are '
        'nearest in size, times 1 less the best score of a detection of any class that overlaps the annotation by IoU '
        f'{BACKGROUND}. Is there such an object?',
        'suspicion',
    ),
}


def add_suspects(page: Page, run: Run, analysis: Analysis, suspects: Suspects) -> None:
    """Add the section."""
    validations = suspects.validations
    section = page.section(
        'Likely label errors',
        f'Annotations of the validation to look at, the most suspicious first. {FILE} beside this page lists all of '
        'them with the ids of the annotations, or with their numbers in the image where the format has no ids.\n'
        'In the pictures, dashed boxes are annotated; the solid boxes are those in question.',
    )
    for kind, some in suspects.kinds.items():
        section.heading(f'{kind.capitalize()}: {len(some):,}')
        text, measure = TEXTS[kind]
        if kind == NEVER and validations < VALIDATIONS:
            text = (
                f'Not listed, because this needs {VALIDATIONS} validations that kept which of these objects they '
                f'found: of {len(run.log.val)} validations, {validations} did.'
            )
        section.text(text.format(score=analysis.score, validations=validations))
        if some:
            _table(section, analysis, kind, some[:ROWS], measure)
        if tiles := list(_crops(run, analysis, kind, some[:CROPS])):
            section.gallery(tiles, caption=f'{kind.capitalize()}: the first {len(tiles)}')


def _table(section: Section, analysis: Analysis, kind: str, suspects: Sequence[Suspect], measure: str) -> None:
    found = list(rows_of(analysis, kind, suspects))
    names = [name for name in COLUMNS if any(row[name] != '' for row in found) and name not in HIDDEN]
    rows = [[row[name] for name in names] for row in found]
    head = [TITLES.get(name, measure if name == 'score' else name) for name in names]
    if kind in (NO_OBJECT, CLASS):
        shares = trust(analysis)
        head = [*head, 'right']
        rows = [[*row, f'{shares[one.detection]:.0%}'] for row, one in zip(rows, suspects, strict=True)]
    section.table(head, rows, caption=f'{kind.capitalize()}: the first {len(rows)}')


def _crops(run: Run, analysis: Analysis, kind: str, suspects: Sequence[Suspect]) -> Iterator[Tile]:
    for suspect, row in zip(suspects, rows_of(analysis, kind, suspects), strict=True):
        if (image := read_picture(run, analysis, suspect.image)) is not None:
            classes = ', found as '.join(str(row[name]) for name in ('class', 'suggested_class') if row[name] != '')
            yield Tile(_crop(image, analysis, suspect), f'{row["rank"]}: {row["file_name"]}, {classes}')


def _crop(image: np.ndarray, analysis: Analysis, suspect: Suspect) -> np.ndarray:
    """The part of an image around a suspect: the boxes in question are solid, other annotations dashed."""
    results = analysis.results
    truth, found, description = results.truth, results.found, results.images[suspect.image]
    rows = np.flatnonzero((truth.image == suspect.image) & ~truth.crowd)
    boxes, labels, solid = truth.boxes[rows], truth.label[rows], np.isin(rows, suspect.objects)
    masks = pixels_of(results.truth_masks, rows.tolist(), description)
    if suspect.detection is not None:
        boxes = np.append(boxes, found.boxes[[suspect.detection]], axis=0)
        labels = np.append(labels, found.label[suspect.detection])
        solid = np.arange(len(boxes)) == len(rows)
        own = pixels_of(results.found_masks, [suspect.detection], description)
        masks = None if masks is None or own is None else masks + own
    corner, end = _window(boxes[solid][0], image.shape[:2])
    shown = (boxes[:, :2] < end).all(axis=1) & (boxes[:, 2:] > corner).all(axis=1)
    part = Image.fromarray(image[corner[1] : end[1], corner[0] : end[0]])
    scale = SIDE / max(part.size)
    part = part.resize([max(1, round(side * scale)) for side in part.size], Image.Resampling.LANCZOS)
    boxes, labels, dashed = (boxes[shown] - np.tile(corner, 2)) * scale, labels[shown], ~solid[shown]
    if masks is not None:
        masks = [masks[k][corner[1] : end[1], corner[0] : end[0]] for k in np.flatnonzero(shown)]
    return draw_boxes(
        np.asarray(part), boxes, labels, classes=results.classes, masks=masks, dashed=dashed, min_long_side=1
    )


def _window(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(2, 2) int64, the left upper and the right lower corner of the part of an image around a box."""
    side = max(AROUND * max(box[2:] - box[:2]), LEAST)
    corners = (box[:2] + box[2:]) / 2 + np.array([[-side], [side]]) / 2
    limits = np.array(size[::-1])
    left_top = np.floor(corners[0]).clip(0, limits - 1)
    return np.stack([left_top, np.ceil(corners[1]).clip(left_top + 1, limits)]).astype(int)
