"""Images of a validation: the worst ones with their errors, and samples with truth beside detections."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from frdet.datasets.transforms.loading import read_image
from frdet.errors import DataError
from frdet.insight.errors import KINDS
from frdet.insight.page import Mark, Tile
from frdet.insight.report.run import Analysis, Run
from frdet.visualization.drawing import draw_boxes
from frdet.visualization.layout import draw_side_by_side, shrunk

WORST, SAMPLES = 12, 8  # images
SIDE = 480  # pixels of the longer side in the page
RIGHT, ANNOTATED = 'right', 'annotated'  # tags of boxes that are no errors
#: Colour of every kind of error, and of right detections.
KIND_COLOURS = dict(zip((*KINDS, RIGHT), ('purple', 'orange', 'cyan', 'blue', 'red', 'green', 'grey'), strict=True))


class MarkedImage(NamedTuple):
    """A picture (H, W, 3) uint8 RGB with marks and a caption."""

    image: np.ndarray
    marks: list[Mark]
    caption: str


class Shown(NamedTuple):
    """The least score decides which of N detections are shown, and which of M objects are missed."""

    kind: np.ndarray  # (N,) int64, index in (*KINDS, RIGHT); -1 where the detection is not shown
    missed: np.ndarray  # (M,) bool: no shown detection found the object, and no shown error is about it


def shown(analysis: Analysis) -> Shown:
    """Detections whose score reaches the one where F1 is best are shown."""
    matched, errors, truth = analysis.matched, analysis.errors, analysis.results.truth
    kind = np.where(matched.right, len(KINDS), errors.found)
    kind[analysis.results.found.scores < analysis.score] = -1
    missed = ~truth.crowd
    for objects in (matched.truth, errors.about):
        missed[objects[(kind >= 0) & (objects >= 0)]] = False
    return Shown(kind, missed)


def worst_images(run: Run, analysis: Analysis) -> list[MarkedImage]:
    """The images with the most errors; every detection and every missed object has a mark."""
    view, found, truth = shown(analysis), analysis.results.found, analysis.results.truth
    count = len(analysis.results.images)
    is_error = (view.kind >= 0) & (view.kind < len(KINDS))
    errors = np.bincount(found.image[is_error], minlength=count) + np.bincount(
        truth.image[view.missed], minlength=count
    )
    order = [place for place in np.argsort(-errors, kind='stable')[:WORST] if errors[place]]
    pictures = []
    for place in order:
        if (loaded := _load(run, analysis, place)) is not None:
            image, scale = loaded
            record = analysis.results.images[place]
            caption = f'{record["file_name"]} (id {record["id"]}): {errors[place]} errors'
            pictures.append(MarkedImage(image, _marks(analysis, view, place, scale), caption))
    return pictures


def samples(run: Run, analysis: Analysis) -> list[Tile]:
    """Images spread over the validation: annotations on the left, detections on the right."""
    found, truth, classes = analysis.results.found, analysis.results.truth, analysis.results.classes
    tiles = []
    for place in np.unique(np.linspace(0, len(analysis.results.images) - 1, SAMPLES).astype(int)).tolist():
        if (loaded := _load(run, analysis, place)) is None:
            continue
        image, scale = loaded
        there = (truth.image == place) & ~truth.crowd
        kept = (found.image == place) & (found.scores >= analysis.score)
        drawn = draw_side_by_side(
            draw_boxes(image, truth.boxes[there] * scale, truth.label[there], classes=classes),
            draw_boxes(image, found.boxes[kept] * scale, found.label[kept], found.scores[kept], classes),
        )
        record = analysis.results.images[place]
        caption = f'{record["file_name"]}: {there.sum()} annotated, {kept.sum()} found'
        tiles.append(Tile(shrunk(drawn, 1.5 * SIDE)[0], caption))
    return tiles


def _marks(analysis: Analysis, view: Shown, place: int, scale: float) -> list[Mark]:
    found, truth, classes = analysis.results.found, analysis.results.truth, analysis.results.classes
    names = (*KINDS, RIGHT)
    marks = []
    for row in np.flatnonzero((truth.image == place) & ~truth.crowd):
        name = classes[truth.label[row]]
        tags = {'error': ANNOTATED, 'class': name}
        marks.append(Mark(truth.boxes[row] * scale, f'{name}: annotated', '#db2777', 'dotted', name, tags=tags))
    for row in np.flatnonzero((found.image == place) & (view.kind >= 0)):
        name, kind = classes[found.label[row]], names[view.kind[row]]
        about = analysis.errors.about[row]
        tip = f'{name} {found.scores[row]:.2f}: {kind}'
        if about >= 0:
            tip += f'\nobject: {classes[truth.label[about]]}'
        score = float(found.scores[row])
        tags = {'error': kind, 'class': name}
        marks.append(Mark(found.boxes[row] * scale, tip, KIND_COLOURS[kind], label=name, tags=tags, score=score))
    for row in np.flatnonzero((truth.image == place) & view.missed):
        name = classes[truth.label[row]]
        tags = {'error': KINDS[-1], 'class': name}
        mark = Mark(truth.boxes[row] * scale, f'{name}: missed', KIND_COLOURS[KINDS[-1]], 'dashed', name, tags=tags)
        marks.append(mark)
    return marks


def _load(run: Run, analysis: Analysis, place: int) -> tuple[np.ndarray, float] | None:
    """An image, shrunk for the page, and the scale; None if it cannot be read, which is added to ``run.missing``."""
    folder = run.facts.image_dir if run.facts else None
    try:
        if folder is None:
            raise DataError('The folder of the validation images is not known')
        image = read_image(str(Path(folder, analysis.results.images[place]['file_name'])))
    except DataError as error:
        sentence = f'Images cannot be shown. {error}'
        if not any(known.startswith('Images cannot be shown') for known in run.missing):
            run.missing.append(sentence)
        return None
    return shrunk(np.ascontiguousarray(image[:, :, ::-1]), SIDE)
