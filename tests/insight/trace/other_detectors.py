"""Detectors of users that say what a test wants: of one stage, with a filter of their own, and without any stage.

Shapes: B images, N anchors of a level, K classes.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from frdet.models.detectors import Detector, FasterRCNN
from frdet.models.task_modules import Detections
from frdet.models.task_modules.observing import Filtered, tell
from frdet.registry import DENSE_HEADS, DETECTORS, PREPROCESSORS
from frdet.structures import to_original
from tests.insight.trace.losing import ANCHORS, CAT, DOG, PREPROCESSOR, ROOT, Box, Scene, Thing, faster_rcnn
from tests.insight.trace.spoken import FAINT, dull, numbers

if str(ROOT / 'docs/examples/retina') not in sys.path:
    sys.path.append(str(ROOT / 'docs/examples/retina'))
import retina  # noqa: E402  # an example of the documentation


@DENSE_HEADS.register_module(force=True)
class SpokenRetinaHead(retina.MyRetinaHead):
    """``said``: image, level, column, row, the refined box and the scores of K classes, in a row each."""

    def __init__(self, *, said: list[list[float]], **kwargs: Any):
        super().__init__(**kwargs)
        self.said = said

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        anchors = self._anchors(features)
        batch = len(features[0])
        logits = [
            torch.tensor([[dull(level, index)] for index in range(len(a))]).repeat(batch, 1, self.num_classes)
            for level, a in enumerate(anchors)
        ]
        deltas = [torch.zeros(batch, len(a), 4) for a in anchors]
        for place, number in enumerate(numbers(features[0])):
            for image, level, column, row, *rest in self.said:
                if image == number:
                    index = int(row) * features[int(level)].shape[3] + int(column)
                    box, scores = torch.tensor(rest[:4]), torch.tensor(rest[4:])
                    logits[int(level)][place, index] = scores.logit()
                    deltas[int(level)][place, index] = self.box_coder.encode(anchors[int(level)][index], box)
        return logits, deltas


def one_stage(scenes: Sequence[Scene]) -> dict[str, Any]:
    """The one-stage detector of the documentation that talks of ``scenes``."""
    said = []
    for number, scene in enumerate(scenes):
        for one in scene.said.values():
            scores = [one.scores.get(label, FAINT) for label in (CAT, DOG)]
            said.append([float(v) for v in (number, *one.anchor, *one.boxes()[0], *scores)])
    head = dict(
        type='SpokenRetinaHead',
        said=said,
        num_classes=2,
        in_channels=1,
        num_convs=0,
        anchor_generator=ANCHORS,
        box_coder=dict(type='DeltaXYWHCoder'),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, match_low_quality=True),
        loss_cls=dict(type='FocalLoss'),
        loss_bbox=dict(type='L1Loss'),
        score_thr=0.05,
        pre_nms=30,
        nms_iou_thr=0.5,
        max_per_image=10,
    )
    return dict(type='OneStage', data_preprocessor=PREPROCESSOR, backbone=dict(type='GreyBackbone'), head=head)


@DETECTORS.register_module(force=True)
class LeftOnly(FasterRCNN):
    """Drops the proposals whose left side is beyond ``limit``, and tells so if there are any.

    ``singly``: it tells so image by image, which is wrong for larger batches.
    """

    def __init__(self, *, limit: float, singly: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.limit, self.singly = limit, singly

    def detect(self, features: tuple[torch.Tensor, ...], image_sizes: torch.Tensor) -> Detections:
        proposals = self.rpn_head.predict(features, image_sizes)
        kept = proposals.valid & (proposals.boxes[..., 0] <= self.limit)
        if (kept != proposals.valid).any():  # a batch of which nothing is dropped has no such stage
            for boxes, some in zip(proposals.boxes.split(1), kept.split(1), strict=True) if self.singly else ():
                tell(Filtered('left side', boxes, some))
            if not self.singly:
                tell(Filtered('left side', proposals.boxes, kept))
        return self.roi_head.predict(features, proposals._replace(valid=kept), image_sizes)


def left_only(scenes: Sequence[Scene]) -> dict[str, Any]:
    return {**faster_rcnn(scenes), 'type': 'LeftOnly', 'limit': 96.0}


@DETECTORS.register_module(force=True)
class Oracle(Detector):
    """Its detections are written down: label, score and box in a row each, the same for every image."""

    def __init__(self, *, found: list[list[float]], **kwargs: Any):
        super().__init__(**kwargs)
        self.found, self.num_classes = found, 2

    def detect(self, features: tuple[torch.Tensor, ...], image_sizes: torch.Tensor) -> Detections:
        rows = torch.tensor(self.found).repeat(len(image_sizes), 1, 1)
        return Detections(rows[..., 2:], rows[..., 1], rows[..., 0].long())


@DETECTORS.register_module(force=True)
class Foreign(BaseModel):
    """As ``Oracle``, and no ``Detector``: any model of MMEngine is tested. With ``found=None`` it gives nothing."""

    def __init__(self, *, found: list[list[float]] | None, data_preprocessor: dict):
        super().__init__(PREPROCESSORS.build(data_preprocessor))
        self.found = found

    def forward(self, inputs: torch.Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Any:
        for sample in data_samples if self.found is not None and data_samples else ():
            rows = torch.tensor(self.found)
            found = InstanceData(bboxes=rows[:, 2:], scores=rows[:, 1], labels=rows[:, 0].long())
            sample.pred_instances = to_original(found, sample.img_shape, sample.ori_shape)
        return data_samples


#: Objects by the stage that loses them, for detectors of which only the detections are known.
OUTCOMES = Scene(
    {
        'resizing': Thing(1, CAT, (120, 120, 126, 126)),
        'no detection': Thing(2, CAT, (0, 96, 16, 112)),
        'another class': Thing(3, CAT, (0, 64, 16, 80)),
        'poor box': Thing(4, DOG, (64, 64, 96, 96)),
        'outranked': Thing(5, DOG, (64, 0, 96, 32)),
        'found': Thing(6, DOG, (72, 0, 104, 32)),
    },
    {},
)
_FOUND: list[tuple[int, float, Box]] = [
    (DOG, 0.9, (72, 0, 104, 32)),  # IoU 24 / 40 with the outranked one, and 1 with the found one
    (DOG, 0.8, (0, 64, 16, 80)),
    (DOG, 0.7, (80, 64, 112, 96)),  # IoU 1/3 with the poor one
]


def oracle(scenes: Sequence[Scene]) -> dict[str, Any]:
    found = [[float(label), score, *map(float, box)] for label, score, box in _FOUND]
    return dict(type='Oracle', found=found, data_preprocessor=PREPROCESSOR, backbone=dict(type='GreyBackbone'))


def foreign(scenes: Sequence[Scene]) -> dict[str, Any]:
    worst_first = oracle(scenes)['found'][::-1]
    return dict(type='Foreign', found=worst_first, data_preprocessor=PREPROCESSOR)
