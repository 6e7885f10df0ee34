"""A Faster R-CNN that says what a test wants, so that it loses one known object at one known stage.

RPN, selection of proposals, RoI head and selection of detections are the real ones. Only what weights would compute is
written down: logits and deltas of anchors, class scores and deltas of RoIs. Every image has one grey value, its number,
by which the detector knows what to say.

The anchors tile an input of 128 pixels: p4 has 8x8 squares of 16 pixels, p5 has 4x4 squares of 32 pixels. An object on
a tile has IoU 1 with its anchor and 0 with the other anchors of that level.
"""

import copy
import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from PIL import Image

from frdet.config import load_config
from frdet.insight.trace import trace_objects
from frdet.insight.trace.model import DETECTION_COLUMNS, DETECTIONS, OBJECT_COLUMNS, OBJECTS, Summary, read_rows
from tests.insight.trace.spoken import FAINT, STRIDES

ROOT = Path(__file__).resolve().parents[3]
SIDE = 128
P4, P5 = 0, 1
CAT, DOG = 0, 1
CLASSES = ('cat', 'dog')
PREPROCESSOR = dict(type='DetPreprocessor', mean=(0.0,) * 3, std=(1.0,) * 3)
ANCHORS = dict(type='AnchorGenerator', strides=STRIDES, sizes=((16,), (32,)), ratios=(1.0,), offset=0.5)
Box = Sequence[float]


def sigmoid(logit: float) -> float:
    """Objectness as a table tells it."""
    return 1 / (1 + math.exp(-logit))


@dataclass(frozen=True)
class Thing:
    """An annotated object; the box is in pixels of the network's input."""

    id: int | str
    label: int
    box: Box
    flags: dict[str, int] = field(default_factory=dict)  #: such as iscrowd=1


@dataclass(frozen=True)
class Said:
    """What the detector says of an anchor, and of the proposal that it becomes."""

    anchor: tuple[int, int, int]  #: level, column, row
    logit: float
    scores: dict[int, float]  #: by label, see ``FAINT``
    moved: Box | None = None  #: the proposal; None: the anchor
    refined: Box | dict[int, Box] | None = (
        None  #: the box after the head, of all classes or by label; None: the proposal
    )

    @property
    def proposal(self) -> Box:
        level, column, row = self.anchor
        x, y, side = column * STRIDES[level], row * STRIDES[level], STRIDES[level]
        return self.moved or (x, y, x + side, y + side)

    def boxes(self) -> list[Box]:
        """The refined box of every class."""
        by_label = self.refined if isinstance(self.refined, dict) else dict.fromkeys((CAT, DOG), self.refined)
        return [by_label.get(label) or self.proposal for label in (CAT, DOG)]


@dataclass(frozen=True)
class Scene:
    """One image."""

    things: dict[str, Thing]
    said: dict[str, Said]

    def change(self, name: str, **changes: Any) -> 'Scene':
        """The scene in which something else is said of ``name``."""
        return replace(self, said={**self.said, name: replace(self.said[name], **changes)})

    def add(self, name: str, thing: Thing | None, said: Said | None) -> 'Scene':
        """The scene with another thing, or with another anchor of which something is said, or with both."""
        things = self.things if thing is None else {**self.things, name: thing}
        return Scene(things, self.said if said is None else {**self.said, name: said})

    def alter(self, name: str, **changes: Any) -> 'Scene':
        """The scene with another annotation of ``name``."""
        return self.add(name, replace(self.things[name], **changes), None)

    def mirrored(self) -> 'Scene':
        """What the detector must say if the input is mirrored; the things stay."""
        return Scene(self.things, {name: _mirrored(said) for name, said in self.said.items()})


def _mirrored(said: Said) -> Said:
    def flip(box: Any) -> Any:
        if isinstance(box, dict):
            return {label: flip(one) for label, one in box.items()}
        return box and (SIDE - box[2], box[1], SIDE - box[0], box[3])

    level, column, row = said.anchor
    anchor = level, SIDE // STRIDES[level] - 1 - column, row
    return replace(said, anchor=anchor, moved=flip(said.moved), refined=flip(said.refined))


#: Four objects that are found. D has no anchor that fits (100 / 256 = 0.39), and a proposal that does.
BASE = Scene(
    {
        'A': Thing(11, CAT, (0, 0, 32, 32)),
        'B': Thing(12, DOG, (64, 0, 96, 32)),
        'C': Thing(13, CAT, (0, 64, 16, 80)),
        'D': Thing(14, CAT, (100, 100, 110, 110)),
    },
    {
        'A': Said((P5, 0, 0), 5, {CAT: 0.9}),
        'B': Said((P5, 2, 0), 4, {DOG: 0.8}),
        'C': Said((P4, 0, 4), 3, {CAT: 0.7}),
        'D': Said((P4, 6, 6), 2, {CAT: 0.85}, moved=(100, 100, 110, 110)),
    },
)

#: E overlaps B: their IoU is 16 * 32 / (2 * 32 * 32 - 16 * 32) = 1/3. A box in the middle has IoU 24 / 40 with both.
BESIDE, MIDDLE = (80, 0, 112, 32), (72, 0, 104, 32)
CROWDED = BASE.add('E', Thing(15, DOG, BESIDE), Said((P5, 3, 0), 6, {DOG: 0.85}, moved=BESIDE))
#: E lies in the middle: a detection of it fits B as well.
CLOSE = BASE.add('E', Thing(15, DOG, MIDDLE), Said((P5, 3, 0), 6, {DOG: 0.85}, moved=MIDDLE))


@functools.cache
def _quickstart() -> Config:
    return load_config(ROOT / 'configs/quickstart/r18_fpn_shapes.py')


def faster_rcnn(scenes: Sequence[Scene]) -> dict[str, Any]:
    """The detector with RPN and RoI head that talks of ``scenes``."""
    usual = copy.deepcopy(_quickstart().model)
    every = [(number, said) for number, scene in enumerate(scenes) for said in scene.said.values()]
    return dict(
        type='FasterRCNN',
        data_preprocessor=PREPROCESSOR,
        backbone=dict(type='GreyBackbone'),
        rpn_head={
            **usual.rpn_head,
            'type': 'SpokenRPNHead',
            'in_channels': 1,
            'feat_channels': 1,
            'anchor_generator': ANCHORS,
            'pre_nms_test': 30,
            'post_nms_test': 12,
            'said': [_of_anchor(*one) for one in every],
        },
        roi_head={
            **usual.roi_head,
            'roi_extractor': dict(type='RoIsThemselves'),
            'box_coder': dict(type='DeltaXYWHCoder'),
            'bbox_head': dict(type='SpokenBoxHead', num_classes=2, said=[_of_roi(*one) for one in every]),
            'max_per_image': 10,
        },
    )


def config(
    scenes: Sequence[Scene],
    folder: Path,
    *,
    size: tuple[int, int] = (SIDE, SIDE),
    model: Callable[[Sequence[Scene]], dict[str, Any]] = faster_rcnn,
    **changes: Any,
) -> Config:
    """Write the data set of ``scenes``, and give the config of the detector that talks of them.

    Args:
        size: (height, width) of the image files; the network's input is ``SIDE`` squared in any case.
        model: gives the config of the detector.
        changes: further settings, with ``__`` for the dots of a key path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_data(scenes, folder, size)
    data = dict(type='CocoDataset', data_root=str(folder), ann_file='truth.json', data_prefix=dict(img=''))
    cfg = copy.deepcopy(_quickstart())
    cfg.merge_from_dict(
        {
            'work_dir': str(folder / 'work'),
            'vis_backends': None,
            'visualizer.vis_backends': [],
            'default_hooks.report': None,
            'test_dataloader.dataset': {**data, '_delete_': True, 'test_mode': True, 'pipeline': pipeline()},
            'model': {**model(scenes), '_delete_': True},
        }
    )
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in changes.items()})
    return cfg


def pipeline(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """Loading, resizing to the network's input, and ``more``."""
    return [dict(type='LoadImage'), dict(type='Resize', scale=(SIDE, SIDE)), *more, dict(type='PackDetInputs')]


def _of_anchor(image: int, said: Said) -> list[float]:
    return [image, *said.anchor, said.logit, *said.proposal]


def _of_roi(image: int, said: Said) -> list[float]:
    x1, y1, x2, y2 = said.proposal
    roi = max(x1, 0), max(y1, 0), min(x2, SIDE), min(y2, SIDE)
    scores = [said.scores.get(label, FAINT) for label in (CAT, DOG)]
    return [float(value) for value in (image, *roi, *scores, *(side for box in said.boxes() for side in box))]


def write_data(scenes: Sequence[Scene], folder: Path, size: tuple[int, int]) -> None:
    """The images ``100``, ``101``, ... and ``truth.json``, with boxes in pixels of the image files.

    The ids of things are 1000 higher from image to image.
    """
    y, x = size[0] / SIDE, size[1] / SIDE
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        Image.fromarray(np.full((*size, 3), number, np.uint8)).save(folder / f'{number}.png')
        images.append(dict(id=100 + number, file_name=f'{number}.png', height=size[0], width=size[1]))
        for thing in scene.things.values():
            x1, y1, x2, y2 = thing.box
            box = [x1 * x, y1 * y, (x2 - x1) * x, (y2 - y1) * y]
            name = thing.id if isinstance(thing.id, str) else thing.id + 1000 * number
            one = dict(id=name, image_id=100 + number, category_id=thing.label + 1, bbox=box, area=box[2] * box[3])
            annotations.append({**one, 'iscrowd': 0, **thing.flags})
    categories = [dict(id=label + 1, name=name) for label, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'truth.json').write_text(json.dumps(content))


class Traced(NamedTuple):
    """A trace, read from its files."""

    summary: Summary
    rows: list[dict[str, Any]]  #: of objects.csv
    wrong: list[dict[str, Any]]  #: of detections.csv

    def of(self, thing: Thing) -> dict[str, Any]:
        """The row of the thing."""
        (row,) = [row for row in self.rows if row['id'] == str(thing.id)]
        return row


def read_trace(folder: Path) -> Traced:
    """Read the files of a trace, and see that they tell the same numbers."""
    summary = Summary.load(folder)
    rows = list(read_rows(folder / OBJECTS, OBJECT_COLUMNS))
    wrong = list(read_rows(folder / DETECTIONS, DETECTION_COLUMNS))
    names = [stage.name for stage in summary.stages]
    assert list(summary.counts) == names and names[-1] == 'found'
    assert summary.counts == {name: sum(row['stage'] == name for row in rows) for name in names}
    assert summary.objects == len(rows)
    assert summary.false_positives == {
        kind: sum(row['kind'] == kind for row in wrong) for kind in summary.false_positives
    }
    assert sum(summary.false_positives.values()) == len(wrong)
    return Traced(summary, rows, wrong)


def trace(
    scenes: Scene | Sequence[Scene], folder: Path, *, options: dict[str, Any] | None = None, **changes: Any
) -> Traced:
    """Trace the detector that talks of ``scenes``; ``options`` of ``trace_objects``, ``changes`` of ``config``."""
    scenes = [scenes] if isinstance(scenes, Scene) else scenes
    trace_objects(config(scenes, folder, **changes), None, folder / 'trace', **(options or {}))
    return read_trace(folder / 'trace')
