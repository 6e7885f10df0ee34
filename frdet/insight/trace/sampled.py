"""A sample of the tested images, and what COCO's evaluation says of detections in it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor

from frdet.evaluation.backends import hotcoco_evaluator
from frdet.evaluation.numbering import Detections, numbered
from frdet.insight.errors import xyxy
from frdet.insight.trace.matching import MetricTruth
from frdet.structures import DetDataSample, box_iou, to_network


class Image(NamedTuple):
    """An image of a sample.

    Attributes:
        index: its number in the data set.
        position: its number in the ground truth.
        item: the result of the pipeline.
        objects: (n, 4) xywh in pixels of the original image, the objects to find; at least one.
    """

    index: int  # type: ignore[assignment]  # the field, not tuple.index
    position: int
    item: Any
    objects: np.ndarray


def draw_images(dataset: Any, truth: MetricTruth, count: int, seed: int) -> Iterator[Image]:
    """``count`` images with objects, or all if there are fewer, each once."""
    seen: set[int] = set()
    for index in np.random.default_rng(seed).permutation(len(dataset)).tolist():
        if len(seen) == count:
            return
        item = dataset[index]
        sample = item['data_samples']
        position = truth.truth.position(sample.img_id, sample.get('img_path'))
        if position is None or position in seen:
            continue
        known = truth.of(position)
        if known.counts.any():
            seen.add(position)
            yield Image(index, position, item, known.xywh[known.counts])


def count_anchored(objects: np.ndarray, sample: DetDataSample, anchors: Sequence[Tensor], iou: float) -> int:
    """How many objects (n, 4), xywh in pixels of the original image, have an anchor with ``iou`` or more.

    Args:
        sample: says how the image was resized.
        anchors: of each level, in pixels of the network's input.
    """
    corners = torch.from_numpy(xyxy(objects)).float()
    flip = bool(sample.get('flip', False))
    boxes = to_network(InstanceData(bboxes=corners), sample.img_shape, sample.ori_shape, flip=flip).bboxes
    best = [box_iou(boxes.to(level.device), level).amax(dim=1) for level in anchors]
    return int((torch.stack(best) >= iou).any(dim=0).sum()) if best else 0


class Score(NamedTuple):
    """What COCO's evaluation says of the detections in I images.

    Attributes:
        found, objects: (I,) number of objects that are found, and of all.
        ap: average precision at one IoU.
        detections: number of detections an image.
        is_limited: whether the metric leaves detections out.
    """

    found: np.ndarray
    objects: np.ndarray
    ap: float
    detections: float
    is_limited: bool

    @property
    def recall(self) -> float:
        """The share of objects that are found."""
        return float(self.found.sum() / self.objects.sum())


def score(truth: MetricTruth, found: Mapping[int, Detections], iou: float) -> Score:
    """Compare detections by the position of their image with the objects. The result is in the order of positions."""
    task = numbered(truth.truth, dict(sorted(found.items())), truth.classes, truth.numbers, truth.max_dets)
    evaluator = hotcoco_evaluator(task, [iou])
    images = evaluator.image_diagnostics(iou_thr=iou)['img_summary']
    right, missed = (np.array([images[number][kind] for number in task.tested]) for kind in ('tp', 'fn'))
    evaluator.accumulate()
    precision = np.array(evaluator.eval['precision'])[..., 0, -1]
    _, counts = np.unique(task.found[:, [0, -1]], axis=0, return_counts=True)  # of a class in an image
    return Score(
        right,
        right + missed,
        float(precision[precision > -1].mean()),
        len(task.found) / len(found),
        bool(counts.max(initial=0) > truth.max_dets[-1]),
    )
