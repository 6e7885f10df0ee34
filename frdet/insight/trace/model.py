"""The plain data of a trace: what following the objects gives, and what pages and tables are made from.

A trace is a folder with four files: ``trace.json`` (a ``Summary``), ``objects.csv`` (a row an object),
``detections.csv`` (a row a false positive) and ``cards.json`` (boxes around some objects).
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from frdet.errors import DataError

SUMMARY, OBJECTS, DETECTIONS, CARDS = 'trace.json', 'objects.csv', 'detections.csv', 'cards.json'
FOUND = 'found'

#: Columns of ``objects.csv``, with the type of their values. A cell is empty where a number is unknown.
OBJECT_COLUMNS: dict[str, type] = {
    'id': str,  # of the annotation; its number in the file, from 1, if the format has no ids
    'image': str,  # id of the image
    'file': str,  # of the image, relative to the folder of images
    'class': str,
    'left': float,  # left, top, width and height in pixels of the original image, as annotated
    'top': float,
    'width': float,
    'height': float,
    'size': str,  # small, medium or large, by COCO's areas
    'crowding': float,  # largest IoU with another object of the image
    'network_size': float,  # square root of the area in pixels of the network's input
    'stage': str,  # the name of the stage that lost it, or FOUND
    'why': str,  # the deciding numbers as a clause: 'suppressed by a proposal of IoU 0.81 with it that fits bus 3'
    'anchor_iou': float,  # best IoU with an anchor
    'anchor_rank': int,  # best rank, from 1, of an anchor that fits, among the anchors of its level
    'anchor_score': float,  # and its score
    'decoded_iou': float,  # best IoU with a box decoded from the anchors that the top-k keeps
    'proposal_iou': float,  # best IoU with a proposal that reaches the second stage
    'own_score': float,  # highest score of its class among the boxes that fit it
    'background_score': float,  # what the class scores of that box leave of 1
    'other_class': str,  # the class with the highest score of that box, apart from its own
    'other_score': float,
    'refined_iou': float,  # best IoU of a box of its class before score threshold and NMS
    'detection_iou': float,  # of the detection that found it, or else the best of its class that fits
    'detection_score': float,
    'detection_rank': int,  # from 1, among the detections of the image
}
#: Columns of ``detections.csv``: the false positives, best score first in every image.
DETECTION_COLUMNS: dict[str, type] = {
    'image': str,
    'file': str,
    'class': str,
    'score': float,
    'left': float,
    'top': float,
    'width': float,
    'height': float,
    'kind': str,  # classification, localisation, both, duplicate or background; see frdet.insight.errors.KINDS
    'object': str,  # id of the object that it overlaps most, if any
    'iou': float,  # with that object
    'level': str,  # the feature map of the anchor that it came from, such as p3
    'anchor_width': float,  # of that anchor, in pixels of the network's input
    'anchor_height': float,
    'anchor_score': float,
    'proposal_rank': int,  # from 1, of the proposal that it came from
}


@dataclass(frozen=True)
class Stage:
    """A stage that may lose objects.

    Attributes:
        name: such as 'proposal NMS'.
        about: a clause after 'lost because': 'a proposal with a higher score suppressed those that fit it'.
        keys: key paths in the config of the settings that decide, such as ``model.rpn_head.nms_iou_thr``, with their
            values; empty if the stage has no setting.
    """

    name: str
    about: str
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Summary:
    """How many objects every stage lost.

    Attributes:
        config: path of the config.
        checkpoint: path or address of the weights; None: random weights.
        detector: name of its class.
        iou: from which IoU on a detection finds an object.
        min_size: objects smaller than this, in pixels of the network's input, are lost at resizing if nothing finds
            them.
        classes: names by label.
        images: number of images.
        stages: in the order of the pipeline; the last one is FOUND.
        counts: number of objects by the name of their stage, FOUND included, with zeros. The sum is the number of
            objects.
        false_positives: number by kind.
        metrics: metric values of the evaluators.
        notes: sentences about what could not be told, such as 'OneStage tells no scores of its anchors'.
        split: val or test: the data of the config that the objects are of.
    """

    config: str
    checkpoint: str | None
    detector: str
    iou: float
    min_size: float
    classes: list[str]
    images: int
    stages: list[Stage]
    counts: dict[str, int]
    false_positives: dict[str, int]
    metrics: dict[str, float]
    notes: list[str] = field(default_factory=list)
    split: str = 'test'

    @property
    def objects(self) -> int:
        """The number of objects; crowds and ignored objects do not count."""
        return sum(self.counts.values())

    @property
    def recall(self) -> float:
        """The share of objects that are found; 0 without objects."""
        return self.counts[FOUND] / max(self.objects, 1)

    def save(self, folder: Path) -> None:
        """Write ``trace.json``."""
        (folder / SUMMARY).write_text(json.dumps(asdict(self), indent=1), encoding='utf-8')

    @classmethod
    def load(cls, folder: str | Path) -> 'Summary':
        """Read ``trace.json``. Raises DataError if the folder has none, or a wrong one."""
        try:
            content = json.loads(Path(folder, SUMMARY).read_text(encoding='utf-8'))
            return cls(**{**content, 'stages': [Stage(**stage) for stage in content['stages']]})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f'{folder} is no trace ({error}): give a folder that tools/trace_objects.py wrote'
            ) from None


@dataclass(frozen=True)
class Around:
    """A box near an object, in pixels of the original image."""

    kind: str  #: anchor, proposal, detection or object
    box: Sequence[float]  #: xyxy
    text: str  #: such as 'proposal, rank 12, score 0.91, IoU 0.46'
    mask: Mapping[str, Any] | None = None  #: COCO's RLE with its counts as text, in the original image


@dataclass(frozen=True)
class Card:
    """An object whose surroundings are drawn.

    Attributes:
        id: of the object in ``objects.csv``; with ``image`` it is unique.
        image: id of its image.
        path: path of the image file.
        around: the boxes near it: nearest anchors, proposals and detections, and other objects.
        mask: of the object, as that of ``Around``.
    """

    id: str
    image: str
    path: str
    around: Sequence[Around]
    mask: Mapping[str, Any] | None = None


def read_rows(path: Path, columns: Mapping[str, type]) -> Iterator[dict[str, Any]]:
    """The rows of ``objects.csv`` or ``detections.csv``; an empty cell of a number is None."""
    with open(path, encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
            yield {name: kind(row[name]) if row[name] or kind is str else None for name, kind in columns.items()}


def load_cards(folder: Path) -> list[Card]:
    """Read ``cards.json``."""
    content = json.loads((folder / CARDS).read_text(encoding='utf-8'))
    return [Card(**{**card, 'around': [Around(**box) for box in card['around']]}) for card in content]


def save_cards(cards: Sequence[Card], folder: Path) -> None:
    """Write ``cards.json``."""
    (folder / CARDS).write_text(json.dumps([asdict(card) for card in cards]), encoding='utf-8')


@dataclass(frozen=True)
class Help:
    """What one changed setting would do, measured on some images.

    Attributes:
        stage: name of the stage whose setting is changed.
        change: in words: 'model.rpn_head.nms_iou_thr: 0.7 -> 0.8'.
        lines: the config lines to write, or words for ``--cfg-options``.
        recall: share of objects found before, and with the change.
        gain: recall after - before.
        interval: 95% interval of the gain over images; the gain is within noise if it includes 0.
        images, objects: size of the sample.
        note: such as 'the weights were trained with the old anchors: train again'; may be empty.
        ap, detections: what it costs: average precision at the IoU of the trace, and detections an image, before and
            with the change.
    """

    stage: str
    change: str
    lines: str
    recall: tuple[float, float]
    gain: float
    interval: tuple[float, float]
    images: int
    objects: int
    note: str = ''
    ap: tuple[float, float] = (math.nan, math.nan)
    detections: tuple[float, float] = (math.nan, math.nan)

    @property
    def is_noise(self) -> bool:
        """Whether the interval of the gain includes 0."""
        return self.interval[0] <= 0 <= self.interval[1]

    @property
    def cost(self) -> str:
        """What the gain costs, in words; empty if it is not known."""
        if math.isnan(self.ap[0]):
            return ''
        (ap, new_ap), (count, new_count) = self.ap, self.detections
        return f'AP {ap:.1%} -> {new_ap:.1%}, {count:.1f} -> {new_count:.1f} detections an image'
