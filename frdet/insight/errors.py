"""Analysis of a validation: its detections and objects, their matches, and kinds of errors.

The kinds are those of Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020. hotcoco
computes the matches and the cost of each kind.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frdet.datasets.annotations import Id
from frdet.datasets.coco import read_coco
from frdet.datasets.coco_file import no_search_for_cycles
from frdet.errors import DataError
from frdet.evaluation.backends import Columns, Numbered, hotcoco_evaluator

#: Kinds of errors and hotcoco's names for them. Five are errors of detections, the last is an error of objects.
_TIDE = {
    'classification': 'Cls',
    'localisation': 'Loc',
    'both': 'Both',
    'duplicate': 'Dupe',
    'background': 'Bkg',
    'missed': 'Miss',
}
KINDS = tuple(_TIDE)
FOREGROUND, BACKGROUND = 0.5, 0.1  # IoU


class Objects(NamedTuple):
    """N annotated objects."""

    image: np.ndarray  #: (N,) int64, index into the list of images
    label: np.ndarray  #: (N,) int64, index into the list of classes
    boxes: np.ndarray  #: (N, 4) float64 xyxy in pixels of the image
    crowd: np.ndarray  #: (N,) bool, crowds and ignored objects, which do not count as found or missed


class Detected(NamedTuple):
    """N detections: ``image``, ``label`` and ``boxes`` as for ``Objects``, ``scores`` (N,) float64."""

    image: np.ndarray
    label: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


class Results(NamedTuple):
    """Objects and detections of a list of images."""

    images: list[dict[str, Any]]  #: COCO's record of every image, sorted by id
    classes: list[str]  #: names in label order
    cat_ids: list[Id]  #: category id of each class
    truth: Objects
    found: Detected
    names: list[str]  #: of the objects: the ids of their annotations, or their numbers in their images, from 1
    truth_masks: Sequence[Any] = ()  #: of the objects, as ``pack_mask`` takes them, None without one; empty: not read
    found_masks: Sequence[Any] = ()  #: of the detections, likewise

    def names_of(self, cat_ids: Sequence[Id]) -> list[str]:
        """Names of categories; the id itself if it has no name."""
        known = dict(zip(self.cat_ids, self.classes, strict=True))
        return [known.get(cat_id, str(cat_id)) for cat_id in cat_ids]


class Match(NamedTuple):
    """The objects that N detections found."""

    truth: np.ndarray  #: (N,) int64, index of the object found, -1 if none
    ignored: np.ndarray  #: (N,) bool, whether the detection lies in a crowd and so is neither right nor wrong

    @property
    def right(self) -> np.ndarray:
        """(N,) bool."""
        return self.truth >= 0

    @property
    def wrong(self) -> np.ndarray:
        """(N,) bool."""
        return (self.truth < 0) & ~self.ignored


class ErrorSplit(NamedTuple):
    """Errors among N detections and the objects."""

    found: np.ndarray  #: (N,) int64, index into ``KINDS`` for every wrong detection; -1 if it is right or in a crowd
    about: np.ndarray  #: (N,) int64, index of the object of a classification or localisation error, else -1
    ap: float  #: AP at IoU 0.5, mean over the classes that have objects
    counts: dict[str, int]  #: number of errors of every kind
    cost: dict[str, float]  #: for every kind, the AP that would be gained without its errors


def read_results(
    ann_file: str | Path,
    detections: str | Path,
    *,
    img_ids: Sequence[Id] | None = None,
    classes: Sequence[str] | None = None,
    has_ids: bool = True,
    with_masks: bool = False,
) -> Results:
    """Read an annotation file, and the detections that ``CocoMetric`` wrote to its ``outfile``.

    Args:
        ann_file: COCO's annotations.
        detections: COCO's results JSON.
        img_ids: the images that were evaluated; None means all.
        classes: names in label order; None means all of the file, sorted by id. Names not in the file are ignored.
        has_ids: whether the ids of annotations are the user's; they are not if frdet wrote the file from a format
            without ids.
        with_masks: read the masks, too, if detections have masks.

    Raises:
        DataError: a file cannot be read or has another format.
    """
    listed = _read_detections(detections)
    with_masks = with_masks and any(isinstance(item, dict) and item.get('segmentation') for item in listed)
    content = read_coco(ann_file, with_masks=with_masks)
    content.ids = content.ids if has_ids else None
    ids = content.categories
    names = [name for name in (classes or ids) if name in ids]
    label_of = {ids[name]: label for label, name in enumerate(names)}
    wanted = None if img_ids is None else set(img_ids)
    images = [image for image in content.images if wanted is None or image['id'] in wanted]
    place_of = {image['id']: place for place, image in enumerate(images)}
    try:
        items = [item for item in listed if item['image_id'] in place_of and item['category_id'] in label_of]
        found = Detected(
            np.array([place_of[item['image_id']] for item in items], dtype=np.int64),
            np.array([label_of[item['category_id']] for item in items], dtype=np.int64),
            xyxy(np.array([item['bbox'] for item in items], dtype=np.float64).reshape(-1, 4)),
            np.array([item['score'] for item in items], dtype=np.float64),
        )
        image = np.array([place_of.get(image['id'], -1) for image in content.images], dtype=np.int64)
        image, label = image[content.image_index], content.labels({name: label_of[ids[name]] for name in names})
        rows = np.flatnonzero((image >= 0) & (label >= 0))
        crowd = (content.crowd | content.ignored)[rows]
        truth = Objects(image[rows], label[rows], xyxy(content.xywh[rows]), crowd)
        numbers = content.names()
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f'{ann_file} and {detections} are not COCO annotations and results ({error}): expected image_id, '
            'category_id, bbox and score'
        ) from None
    masks: Any = ()
    if with_masks:
        truth_masks = [None] * len(rows) if content.masks is None else content.masks[rows].tolist()
        masks = truth_masks, [item.get('segmentation') for item in items]
    return Results(images, names, [ids[name] for name in names], truth, found, [numbers[row] for row in rows], *masks)


def _read_detections(path: str | Path) -> list[dict[str, Any]]:
    try:
        with no_search_for_cycles():
            content = json.loads(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise DataError(f'Detections {path} cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): expected COCO's results") from None
    if not isinstance(content, list):
        raise DataError(f"{path} holds a {type(content).__name__}: expected COCO's results, a list of detections")
    return content


def match(found: Detected, truth: Objects, *, num_classes: int) -> Match:
    """COCO's matching at IoU 0.5: in the order of descending scores, each detection takes the free object of its class
    that it overlaps most."""
    matches = _evaluator(found, truth, num_classes).image_diagnostics(iou_thr=FOREGROUND)
    ids = range(1, len(found.image) + 1)
    taken = np.array([matches['dt_match'].get(i, 0) - 1 for i in ids], dtype=np.int64)
    return Match(taken, np.array([i not in matches['dt_status'] for i in ids], dtype=bool))


def split_errors(found: Detected, truth: Objects, matched: Match, *, num_classes: int) -> ErrorSplit:
    """Find the kind of error of every wrong detection, and count and cost each kind. ``matched`` is their ``match``."""
    tide = _without_crowds(found, truth, matched, num_classes).tide_errors(pos_thr=FOREGROUND, bg_thr=BACKGROUND)
    counts, cost = ({name: tide[key][short] for name, short in _TIDE.items()} for key in ('counts', 'delta_ap'))
    return ErrorSplit(*kinds_of(found, truth, matched), tide['ap_base'], counts, cost)


def confusion_matrix(found: Detected, truth: Objects, matched: Match, *, num_classes: int, score: float) -> np.ndarray:
    """(K + 1, K + 1) int64 counts of objects by their class (row) and the class they were found as (column).

    The last column counts missed objects, the last row detections without an object. In the order of descending
    scores, each detection takes the free object of any class that it overlaps most, if their IoU is 0.5 or more. Crowds
    and detections in them do not count.

    Args:
        found, truth, matched: detections and objects of the same images, and their ``match``.
        num_classes: K.
        score: the least score of detections that count.
    """
    evaluator = _without_crowds(found, truth, matched, num_classes)
    counts = evaluator.confusion_matrix(iou_thr=FOREGROUND, max_det=len(found.image), min_score=score)
    return counts['matrix'].astype(np.int64)


def _evaluator(found: Detected, truth: Objects, num_classes: int) -> Any:
    """hotcoco's evaluator. Its ids of detections and objects are their rows + 1."""
    num_images = 1 + max(found.image.max(initial=-1), truth.image.max(initial=-1))
    area = np.ones(len(truth.image))  # sizes are not told apart
    columns = Columns(truth.image + 1, truth.label + 1, _xywh(truth.boxes), area, truth.crowd)
    table = np.column_stack([found.image + 1, _xywh(found.boxes), found.scores, found.label + 1])
    images, most = list(range(1, num_images + 1)), max(1, len(found.image))
    return hotcoco_evaluator(Numbered(num_images, num_classes, columns, table, images, [most] * 3))


def _without_crowds(found: Detected, truth: Objects, matched: Match, num_classes: int) -> Any:
    """The evaluator without crowds. TIDE knows none: hotcoco would call a detection near one a localisation error."""
    counted = Detected(*(column[~matched.ignored] for column in found))
    return _evaluator(counted, Objects(*(column[~truth.crowd] for column in truth)), num_classes)


def kind_texts(foreground: float = FOREGROUND) -> dict[str, str]:
    """What an error of each kind is, after 'a detection that'."""
    return {
        'classification': f'overlaps an object of another class by IoU {foreground:g} or more',
        'localisation': f'overlaps an object of its class by {BACKGROUND:g} to {foreground:g}',
        'both': f'overlaps an object of another class by {BACKGROUND:g} to {foreground:g}',
        'duplicate': 'overlaps an object that a better detection found',
        'background': f'overlaps no object by {BACKGROUND:g}',
        'missed': 'an object that no detection found, not even with a wrong class or box',
    }


def kinds_of(
    found: Detected, truth: Objects, matched: Match, foreground: float = FOREGROUND
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) kind of error of every detection, an index into ``KINDS``, and (N,) its object; -1 where there is none.

    The first rule that holds applies, in TIDE's order. ``foreground`` is the IoU at which ``matched`` was made.
    """
    from hotcoco.primitives import bbox_iou

    classification, localisation, both, duplicate, background = range(5)  # as in KINDS
    kind, about = np.where(matched.wrong, background, -1), np.full(len(found.image), -1)
    wrong, objects = rows_by_image(found.image, matched.wrong), rows_by_image(truth.image, ~truth.crowd)
    for image in wrong.keys() & objects.keys():
        rows, columns = wrong[image], objects[image]
        iou = bbox_iou(_xywh(found.boxes[rows]), _xywh(truth.boxes[columns]), np.zeros(len(columns), dtype=bool))
        is_same = found.label[rows][:, None] == truth.label[columns]
        of_same, of_other = iou * is_same, iou * ~is_same
        same, other = of_same.max(axis=1), of_other.max(axis=1)
        is_localisation = (same >= BACKGROUND) & (same < foreground)
        is_background = np.maximum(same, other) < BACKGROUND
        kind[rows] = np.select(
            [is_localisation, other >= foreground, same >= foreground, is_background],
            [localisation, classification, duplicate, background],
            both,
        )
        about[rows] = np.select(
            [is_localisation, other >= foreground],
            [columns[of_same.argmax(axis=1)], columns[of_other.argmax(axis=1)]],
            -1,
        )
    return kind, about


def rows_by_image(image: np.ndarray, chosen: np.ndarray) -> dict[int, np.ndarray]:
    """The chosen rows of every image that has any."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(image[rows], kind='stable')]
    images, starts = np.unique(image[rows], return_index=True)
    return dict(zip(images.tolist(), np.split(rows, starts)[1:], strict=True))


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)


def xyxy(boxes: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) as left, top, width and height -> as two corners."""
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)
