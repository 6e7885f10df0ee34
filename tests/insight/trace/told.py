"""A detector that says what a test wants, so that the effect of every setting is known. It has no weights.

Images are grey squares of ``SIDE`` pixels; the grey value is the number of the scene.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from PIL import Image

from frdet.insight.trace.model import Stage, Summary
from frdet.models.detectors import Detector
from frdet.models.task_modules import select_batch
from frdet.registry import BACKBONES, DETECTORS

SIDE = 100
CLASSES = ('cat', 'dog')
SETTINGS = {'score threshold': 'score_thr', 'class NMS': 'nms_iou_thr', 'detections cut': 'max_per_image'}
Box = tuple[float, float, float, float]


class Said(NamedTuple):
    """A detection before any threshold: xyxy in the original image. Smaller inputs than ``needs`` do not show it."""

    box: Box
    score: float
    label: int = 0
    needs: int = 0


class Scene(NamedTuple):
    """Objects of class 0, and what the detector says of them."""

    objects: Sequence[Box]
    said: Sequence[Said]


@BACKBONES.register_module(force=True)
class PassOn(BaseModule):
    """The image is the only map."""

    out_channels = (3,)
    calls = 0

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        PassOn.calls += 1
        return (images,)


@DETECTORS.register_module(force=True)
class Told(Detector):
    """Selects among the detections ``said`` of the scene that an image shows."""

    def __init__(self, *, said: list, score_thr: float, nms_iou_thr: float, max_per_image: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.said = said
        self.limits = dict(score_thr=score_thr, nms_iou_thr=nms_iou_thr, num=max_per_image)

    def detect(self, features: tuple[torch.Tensor, ...], image_sizes: torch.Tensor) -> Any:
        (size,) = image_sizes.tolist()
        rows = torch.tensor([row for row in self.said[int(features[0][0, 0, 0, 0])] if row[6] <= size[0]])
        boxes, scores = rows[None, :, None, :4] * size[0] / SIDE, torch.zeros(1, len(rows), len(CLASSES))
        scores[0, torch.arange(len(rows)), rows[:, 5].long()] = rows[:, 4]
        return select_batch(boxes, scores, torch.ones(1, len(rows), dtype=torch.bool), **self.limits)


def write_config(folder: Path, scenes: Sequence[Scene], **limits: Any) -> Config:
    """The config of a ``Told``, and its data: an image for each scene."""
    (folder / 'images').mkdir()
    images, annotations = [], []
    for number, scene in enumerate(scenes):
        Image.fromarray(np.full((SIDE, SIDE, 3), number, np.uint8)).save(folder / f'images/{number}.png')
        images.append(dict(id=number, file_name=f'{number}.png', width=SIDE, height=SIDE))
        for x1, y1, x2, y2 in scene.objects:
            box, area = [x1, y1, x2 - x1, y2 - y1], (x2 - x1) * (y2 - y1)
            record = dict(id=len(annotations) + 1, image_id=number, category_id=1, bbox=box, area=area, iscrowd=0)
            annotations.append(record)
    categories = [dict(id=label, name=name) for label, name in enumerate(CLASSES, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'truth.json').write_text(json.dumps(content))
    said = [[(*one.box, one.score, one.label, one.needs) for one in scene.said] for scene in scenes]
    return Config(
        dict(
            default_scope='frdet',
            model=dict(
                type='Told',
                said=said,
                backbone=dict(type='PassOn'),
                data_preprocessor=dict(type='DetPreprocessor', mean=(0.0,) * 3, std=(1.0,) * 3, pad_size_divisor=1),
                **{**dict(score_thr=0.05, nms_iou_thr=0.5, max_per_image=100), **limits},
            ),
            test_dataloader=dict(
                dataset=dict(
                    type='CocoDataset',
                    ann_file=str(folder / 'truth.json'),
                    data_prefix=dict(img=str(folder / 'images')),
                    test_mode=True,
                    pipeline=[
                        dict(type='LoadImage'),
                        dict(type='Resize', scale=(SIDE, SIDE)),
                        dict(type='PackDetInputs'),
                    ],
                ),
            ),
            test_evaluator=dict(type='CocoMetric'),
        )
    )


def summary_of(cfg: Config, stages: Sequence[str], iou: float = 0.5) -> Summary:
    """As if a trace had lost an object at each of ``stages``, and found one."""
    found = [Stage(name, '', {f'model.{SETTINGS[name]}': cfg.model[SETTINGS[name]]}) for name in stages]
    return Summary(
        config='',
        checkpoint=None,
        detector='Told',
        iou=iou,
        min_size=8.0,
        classes=list(CLASSES),
        images=1,
        stages=[*found, Stage('found', '')],
        counts={**dict.fromkeys(stages, 1), 'found': 1},
        false_positives={},
        metrics={},
    )
