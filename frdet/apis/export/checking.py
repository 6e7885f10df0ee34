"""Comparing an exported file with its model, image by image."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.apis.export.exporting import plain_copy
from frdet.apis.exported import Run, load_exported, run_batch
from frdet.apis.images import Image, prepare
from frdet.apis.inference import pipeline_of, predict
from frdet.structures import DetDataSample

BOX_TOLERANCE = 0.1  # pixels
SCORE_TOLERANCE = 1e-3
MASK_TOLERANCE = 1e-2  # a box that is moved by its tolerance moves its mask
UNPAIRED_SHARE = 0.05
PAIRED = 1.0  # largest difference of the coordinates of a pair, in pixels
GREY = 114.0  # about the mean of photographs
SMALLEST = 65  # smallest side of the images that are made, in pixels

#: Boxes (n, 4), scores (n,), labels (n,), and masks (n, M, M) on grids, without which M is 0.
Found = tuple[Tensor, Tensor, Tensor, Tensor]


class Difference(NamedTuple):
    """The difference between the file and the model on one batch.

    Attributes:
        name: the images and their size.
        detections: number of the model's detections.
        box: largest difference of a coordinate in a pair of detections, in pixels of the input.
        score: largest difference of scores in a pair.
        mask: largest difference of a mask's probabilities in a pair; None without masks.
        unpaired: number of detections without a pair. Detections with the lowest kept score do not count.
    """

    name: str
    detections: int
    box: float
    score: float
    mask: float | None
    unpaired: int

    @property
    def is_small(self) -> bool:
        """Whether rounding explains it: at most 0.1 pixels, 0.001 of a score, 0.01 of a mask, and 5% without a pair.

        NMS may keep another candidate if the scores of two candidates differ by less than rounding.
        """
        is_close = self.box <= BOX_TOLERANCE and self.score <= SCORE_TOLERANCE
        is_close &= (self.mask or 0) <= MASK_TOLERANCE
        return is_close and self.unpaired <= UNPAIRED_SHARE * self.detections


def check_exported(model: nn.Module, path: str | Path, images: Sequence[Image]) -> list[Difference]:
    """Run an exported file in ONNX Runtime or torch, and compare it with the model, in float32 on the CPU.

    Args:
        model: the exported model of ``init_detector``.
        path: the .onnx or .pt2 file.
        images: at least one image, as for ``inference_detector``. Each one is run alone; then the first one resized to
            be smaller, two images in one batch, and an empty grey image. Images that are too small for a .pt2 file are
            enlarged.

    Raises:
        ExportError: the file cannot be run, or a package is missing.
        DataError: an image cannot be read.
    """
    run, plain = load_exported(path), plain_copy(model)
    plain.paste_masks = lambda masks, boxes, size: masks  # they are compared on their grids
    differences = []
    prepared = [data['inputs'].float() for data in prepare(images, pipeline_of(model.cfg))]
    for name, batch in _batches(prepared, getattr(run, 'least', SMALLEST)):
        expected = _by_model(plain, batch)
        found, places = _by_file(run, batch)
        pairs = [_compare(*pair, _least_score(plain, pair[0], places)) for pair in zip(expected, found, strict=True)]
        boxes, scores, masks, unpaired = zip(*pairs, strict=True)
        count = sum(len(scores) for _, scores, *_ in expected)
        mask = max(masks) if expected[0][3].shape[1] else None
        differences.append(Difference(name, count, max(boxes), max(scores), mask, sum(unpaired)))
    return differences


def _batches(images: list[Tensor], least: int) -> Iterator[tuple[str, list[Tensor]]]:
    """Names and images (3, H_i, W_i) of the batches to compare. Every side has ``least`` pixels or more."""
    images = [_resized(image, [max(side, least) for side in image.shape[1:]]) for image in images]
    smaller = _resized(images[0], [max(side * 3 // 4, least) for side in images[0].shape[1:]])
    batches = [
        *((f'image {i}', [image]) for i, image in enumerate(images, 1)),
        ('image 1, smaller', [smaller]),
        ('images 1 and 2' if images[1:] else 'both sizes', [images[0], images[1] if images[1:] else smaller]),
        ('grey', [torch.full_like(smaller, GREY)]),
    ]
    for name, batch in batches:
        sizes = ' and '.join(f'{image.shape[1]} x {image.shape[2]}' for image in batch)
        yield f'{name}, {sizes}', batch


def _resized(image: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(image[None], size, mode='bilinear', antialias=True)[0]


def _by_model(model: Any, batch: list[Tensor]) -> list[Found]:
    """Detections as in testing."""
    shapes = [tuple(image.shape[1:]) for image in batch]
    samples = [DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape)) for shape in shapes]
    data = [{'inputs': image, 'data_samples': sample} for image, sample in zip(batch, samples, strict=True)]
    found = [sample.pred_instances for sample in predict(model, data)]
    return [(x.bboxes, x.scores, x.labels, x.get('masks', x.bboxes.new_zeros(len(x), 0, 0))) for x in found]


def _by_file(run: Run, batch: list[Tensor]) -> tuple[list[Found], int]:
    """The detections of the file in each image, and the greatest number of detections in one image."""
    outputs = run_batch(run, batch, padding=99)  # any value must give the same result
    boxes, scores, labels, *masks = outputs
    masks = masks or [boxes.new_zeros(*labels.shape, 0, 0)]
    there = [(one, one[2] >= 0) for one in zip(boxes, scores, labels, *masks, strict=True)]
    return [tuple(x[is_there] for x in one) for one, is_there in there], labels.shape[1]


def _least_score(model: nn.Module, found: Found, places: int) -> float:
    """Up to this score, rounding may decide whether a list contains a detection."""
    threshold = max((getattr(part, 'score_thr', 0.0) for part in model.modules()), default=0.0)
    last = float(found[1][-1]) if len(found[1]) == places else 0.0
    return max(threshold, last) + SCORE_TOLERANCE


def _compare(expected: Found, found: Found, least: float) -> tuple[float, float, float, int]:
    """The largest differences of boxes, scores and masks in pairs, and the larger number of detections without a pair.

    A detection's pair is the nearest detection of its label in pixels plus scores, because rounding may exchange
    detections of equal scores, and one object may have several boxes that the border of the image has made equal.
    """
    box, score, mask, unpaired = [0.0], [0.0], [0.0], []
    for one, other in ((expected, found), (found, expected)):
        boxes, scores, labels, masks = (values[one[1] > least] for values in one)
        apart = (boxes[:, None] - other[0]).abs().amax(dim=2).masked_fill(labels[:, None] != other[2], torch.inf)
        apart = F.pad(apart, (0, 1), value=torch.inf)  # without another box it is inf
        nearest = (apart + F.pad((scores[:, None] - other[1]).abs(), (0, 1))).argmin(dim=1)
        distance = apart.gather(1, nearest[:, None])[:, 0]
        has_pair = distance <= PAIRED
        unpaired.append(int((~has_pair).sum()))
        box += distance[has_pair].tolist()
        score += (other[1][nearest[has_pair]] - scores[has_pair]).abs().tolist()
        masks_apart = (other[3][nearest[has_pair]] - masks[has_pair]).abs().flatten(1)
        mask += F.pad(masks_apart, (0, 1)).amax(dim=1).tolist()
    return max(box), max(score), max(mask), max(unpaired)
