"""Images of a validation: the worst ones with their errors, and samples with truth beside detections."""

from pathlib import Path
from typing import Any

import numpy as np

from frdet.datasets.transforms.loading import read_image
from frdet.errors import DataError
from frdet.insight.errors import KINDS
from frdet.insight.page import Mark, Section, Tile
from frdet.insight.report.run import Analysis, Run
from frdet.visualization.drawing import draw_boxes, draw_side_by_side, shrunk

WORST, SAMPLES = 12, 8  # images
SIDE = 480  # pixels of the longer side in the page
RIGHT, ANNOTATED = 'right', 'annotated'  # tags of boxes that are no errors
#: Colour of every kind of error, of right detections and of objects. Lines differ too: a missed object is dashed, an
#: annotated one dotted, because some people cannot tell red from green.
COLOURS = ('purple', 'orange', 'cyan', 'blue', '#db2777', 'red', 'grey', 'green')
COLOUR_OF = dict(zip((*KINDS, RIGHT, ANNOTATED), COLOURS, strict=True))


def add_worst(section: Section, run: Run, analysis: Analysis) -> None:
    """The images with the most errors, where every shown detection, object and missed object has a mark."""
    kind, missed = shown(analysis)
    found, truth, images = analysis.results.found, analysis.results.truth, analysis.results.images
    wrong = found.image[(kind >= 0) & (kind < len(KINDS))]
    errors = np.bincount(np.concatenate([wrong, truth.image[missed]]), minlength=len(images))
    for place in np.argsort(-errors, kind='stable')[:WORST]:
        if errors[place] and (whole := read_picture(run, analysis, place)) is not None:
            caption = f'{images[place]["file_name"]} (id {images[place]["id"]}): {errors[place]} errors'
            image, scale = shrunk(whole, SIDE)
            section.picture(image, caption, marks=_marks(analysis, kind, missed, place, scale), filtered=True)


def shown(analysis: Analysis) -> tuple[np.ndarray, np.ndarray]:
    """The kinds of N detections with at least the score where F1 is best, and which of M objects they miss.

    Returns:
        (N,) int64, index in ``(*KINDS, RIGHT)``, -1 where the score of the detection is lower.
        (M,) bool, whether no shown detection found the object, and no shown error is about it.
    """
    matched, errors, truth = analysis.matched, analysis.errors, analysis.results.truth
    kind = np.where(matched.right, len(KINDS), errors.found)
    kind[analysis.results.found.scores < analysis.score] = -1
    missed = ~truth.crowd
    for objects in (matched.truth, errors.about):
        missed[objects[(kind >= 0) & (objects >= 0)]] = False
    return kind, missed


def _marks(analysis: Analysis, kind: np.ndarray, missed: np.ndarray, place: int, scale: float) -> list[Mark]:
    classes, truth, found = analysis.results.classes, analysis.results.truth, analysis.results.found
    about = analysis.errors.about

    def mark(box: Any, label: int, kind: str, tip: str, line: str, score: float | None = None) -> Mark:
        name = classes[label]
        tags = {'error': kind, 'class': name}
        return Mark(box * scale, f'{name}{tip}', COLOUR_OF[kind], line, name, tags=tags, score=score)

    def objects(chosen: np.ndarray, kind: str, line: str) -> list[Mark]:
        rows = np.flatnonzero((truth.image == place) & chosen)
        return [mark(truth.boxes[row], truth.label[row], kind, f': {kind}', line) for row in rows]

    detections = []
    for row in np.flatnonzero((found.image == place) & (kind >= 0)):
        name, score = (*KINDS, RIGHT)[kind[row]], float(found.scores[row])
        tip = f' {score:.2f}: {name}' + (f'\nobject: {classes[truth.label[about[row]]]}' if about[row] >= 0 else '')
        detections.append(mark(found.boxes[row], found.label[row], name, tip, 'solid', score))
    return [*objects(~truth.crowd, ANNOTATED, 'dotted'), *detections, *objects(missed, KINDS[-1], 'dashed')]


def samples(run: Run, analysis: Analysis) -> list[Tile]:
    """Images spread over the validation: annotations on the left, detections on the right."""
    results, tiles = analysis.results, []
    images, classes, truth, found = results.images, results.classes, results.truth, results.found
    for place in np.unique(np.linspace(0, len(images) - 1, SAMPLES).astype(int)).tolist():
        if (whole := read_picture(run, analysis, place)) is None:
            continue
        image, scale = shrunk(whole, SIDE)
        there = (truth.image == place) & ~truth.crowd
        kept = (found.image == place) & (found.scores >= analysis.score)
        drawn = draw_side_by_side(
            draw_boxes(image, truth.boxes[there] * scale, truth.label[there], classes=classes),
            draw_boxes(image, found.boxes[kept] * scale, found.label[kept], found.scores[kept], classes),
        )
        caption = f'{images[place]["file_name"]}: {there.sum()} annotated, {kept.sum()} found'
        tiles.append(Tile(shrunk(drawn, 1.5 * SIDE)[0], caption))
    return tiles


def read_picture(run: Run, analysis: Analysis, place: int) -> np.ndarray | None:
    """An image (H, W, 3) uint8 RGB; None if it cannot be read, which is added to ``run.missing``."""
    try:
        if run.facts is None or run.facts.image_dir is None:
            raise DataError('The folder of the validation images is not known')
        image = read_image(str(Path(run.facts.image_dir, analysis.results.images[place]['file_name'])))
    except DataError as error:
        if not any(known.startswith('Images cannot be shown') for known in run.missing):
            run.missing.append(f'Images cannot be shown. {error}')
        return None
    return np.ascontiguousarray(image[:, :, ::-1])
