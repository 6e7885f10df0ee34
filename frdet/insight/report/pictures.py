"""Images of a validation: the worst ones with their errors, and samples with truth beside detections."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from frdet.datasets.masks import decode_rle, pack_mask, rle_of, unpack_mask
from frdet.datasets.transforms.loading import read_image
from frdet.errors import DataError
from frdet.insight.errors import KINDS
from frdet.insight.outlines import outline_of
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
            marks = _marks(analysis, kind, missed, place, scale, image.shape)
            section.picture(image, caption, marks=marks, filtered=True)


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


def _marks(
    analysis: Analysis, kind: np.ndarray, missed: np.ndarray, place: int, scale: float, size: tuple[int, ...]
) -> list[Mark]:
    """Marks of an image that is shrunk by ``scale`` to a picture of ``size``."""
    results, about = analysis.results, analysis.errors.about
    classes, truth, found = results.classes, results.truth, results.found

    def mark(of: Any, masks: Sequence[Any], row: int, kind: str, tip: str, line: str, **options: Any) -> Mark:
        name = classes[of.label[row]]
        pixels = pixels_of(masks, [row], results.images[place])
        outline = outline_of(pixels[0], size) if pixels else ''
        tags = {'error': kind, 'class': name}
        look = COLOUR_OF[kind], line, name, outline
        return Mark(of.boxes[row] * scale, f'{name}{tip}', *look, tags=tags, **options)

    def objects(chosen: np.ndarray, kind: str, line: str) -> list[Mark]:
        rows = np.flatnonzero((truth.image == place) & chosen)
        return [mark(truth, results.truth_masks, row, kind, f': {kind}', line) for row in rows.tolist()]

    detections = []
    for row in np.flatnonzero((found.image == place) & (kind >= 0)).tolist():
        name, score = (*KINDS, RIGHT)[kind[row]], float(found.scores[row])
        tip = f' {score:.2f}: {name}' + (f'\nobject: {classes[truth.label[about[row]]]}' if about[row] >= 0 else '')
        detections.append(mark(found, results.found_masks, row, name, tip, 'solid', score=score))
    return [*objects(~truth.crowd, ANNOTATED, 'dotted'), *detections, *objects(missed, KINDS[-1], 'dashed')]


def samples(run: Run, analysis: Analysis) -> list[Tile]:
    """Images spread over the validation: annotations on the left, detections on the right."""
    results, tiles = analysis.results, []
    images, classes, truth, found = results.images, results.classes, results.truth, results.found
    for place in np.unique(np.linspace(0, len(images) - 1, SAMPLES).astype(int)).tolist():
        if (whole := read_picture(run, analysis, place)) is None:
            continue
        image, scale = shrunk(whole, SIDE)
        there = np.flatnonzero((truth.image == place) & ~truth.crowd)
        kept = np.flatnonzero((found.image == place) & (found.scores >= analysis.score))
        masks = (
            pixels_of(some, rows, images[place])
            for some, rows in ((results.truth_masks, there), (results.found_masks, kept))
        )
        boxes, labels, scores = found.boxes[kept] * scale, found.label[kept], found.scores[kept]
        drawn = draw_side_by_side(
            draw_boxes(image, truth.boxes[there] * scale, truth.label[there], classes=classes, masks=next(masks)),
            draw_boxes(image, boxes, labels, scores, classes, masks=next(masks)),
        )
        caption = f'{images[place]["file_name"]}: {len(there)} annotated, {len(kept)} found'
        tiles.append(Tile(shrunk(drawn, 1.5 * SIDE)[0], caption))
    return tiles


def pixels_of(masks: Sequence[Any], rows: Iterable[int], image: Mapping[str, Any]) -> list[np.ndarray] | None:
    """The masks ``rows`` of an image, (h, w) uint8 each; None if there are none, or one of them has another form."""
    if not masks:
        return None
    with suppress(ValueError):
        size = image['height'], image['width']
        packed = (pack_mask(masks[row]) for row in rows)
        return [decode_rle(rle_of([] if one is None else unpack_mask(one), size)) for one in packed]
    return None


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
