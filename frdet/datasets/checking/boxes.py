"""Checking all boxes of a data set at once: N images, M boxes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pycocotools import mask

from frdet.datasets.annotations import Annotations, short
from frdet.datasets.checking import PICTURES, Findings, Place
from frdet.datasets.masks import box_of, unpack_mask

FEW = 10  # so many boxes may leave their images, even if they are most of all boxes
TOLERANCE = 1.0  # a box may leave its image by so many pixels; COCO's own boxes are rounded to hundredths
MASK_TOLERANCE = 3.0  # pixels between the sides of a box and of its mask, or a tenth of the longer side
CONFLICT, SAME = 0.9, 0.95  # IoU from which two boxes of two classes, and of one class, mark the same object
ENOUGH = 20  # boxes of a class that tell what is usual in it
DEVIATIONS, FACTOR = 6, 10  # an area is unusual beyond so many deviations and so many times the median
THIN, USUAL = 15, 5  # a ratio of the sides is unusual beyond THIN if half of the class is below USUAL
ROWS = 1000  # boxes of an image that are compared at once with all its boxes


class BoxCheck:
    """Adds findings about rows of ``content``.

    Args:
        content: the annotations.
        names: the name and the text of row k, for examples.
        folder: folder of the images.
        findings: gets the findings.
    """

    def __init__(
        self, content: Annotations, names: Callable[[int], tuple[str, str]], folder: str | Path, findings: Findings
    ):
        self.content, self.names, self.folder, self.findings = content, names, folder, findings
        self.classes = list(content.categories)

    def run(self) -> None:
        """Check all boxes."""
        content = self.content
        sizes = np.array([(image['width'], image['height']) for image in content.images]).reshape(-1, 2)
        (x, y, w, h), (width, height) = content.xywh.T, sizes[content.image_index].T
        least, own = np.minimum(w, h), w * h
        leaves = (np.minimum(x, y) < -TOLERANCE) | (x + w > width + TOLERANCE) | (y + h > height + TOLERANCE)
        left = np.ones(len(least), dtype=bool)  # of several mistakes in the place of a box, the worst is named
        for kind, wrong in {
            'box of negative size': least < 0,
            'box outside its image': (x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0),
            'box without area': least == 0,
            'box leaves its image': leaves,
        }.items():
            self._add(kind, left & wrong, self._in_image)
            left &= ~wrong
        self._add('area that is not positive', content.replaced, lambda k: self.names(k)[0])
        self._add('ignored box', content.ignored, lambda k: self.names(k)[0])
        fractions = (np.abs(content.xywh).max(axis=1, initial=0) <= 1) & (np.minimum(width, height) > 1)
        other_area = (own > 0) & ((content.area < 0.01 * own) | (content.area > 1.05 * own))  # a mask fits in its box
        for kind, wrong, allowed in (
            ('most boxes leave their images', leaves, FEW),
            ('boxes of 0 to 1', fractions, 0),
            ('areas unlike their boxes', other_area, 0),
        ):
            if (count := int(wrong.sum())) > max(len(own) / 2, allowed):
                first = int(wrong.argmax())
                self.findings.add(kind, f'{count} of {len(own)}', self._place(first))
        if content.masks is not None:
            self._check_masks(content.masks)
        self._check_pairs()
        self._check_outliers((least > 0) & ~content.crowd & ~content.ignored)

    def _check_masks(self, masks: np.ndarray) -> None:
        """Find masks that are missing, empty, or elsewhere than their boxes."""
        there = np.array([mask is not None for mask in masks.tolist()], dtype=bool)
        around = np.zeros((len(masks), 4))
        around[there] = np.array([box_of(unpack_mask(mask)) for mask in masks[there]]).reshape(-1, 4)
        around[:, 2:] += around[:, :2]
        box = self.content.xywh.copy()
        box[:, 2:] += box[:, :2]
        empty = there & (around[:, 2:] <= around[:, :2]).any(axis=1)
        apart = np.abs(around - box).max(axis=1, initial=0) > np.maximum(MASK_TOLERANCE, 0.1 * self._sides())
        self._add('object without a mask', ~there, lambda k: self.names(k)[0])
        self._add('mask without area', empty, lambda k: self.names(k)[0])
        self._add(
            'box unlike its mask',
            there & ~empty & apart,
            lambda k: f'{self._in_image(k)}, the mask is in [{", ".join(f"{v:g}" for v in around[k].round(2))}]',
        )

    def _sides(self) -> np.ndarray:
        return np.abs(self.content.xywh[:, 2:]).max(axis=1, initial=0)

    def _check_pairs(self) -> None:
        """Find boxes on an object that has a box already."""
        content, seen = self.content, set()
        index = content.category_index
        objects = ~content.crowd & ~content.ignored
        for first, second, iou in overlapping(content.image_index, content.xywh, objects, least=CONFLICT):
            is_same = index[first] == index[second]
            if (second, is_same) in seen or (is_same and iou <= SAME):
                continue
            seen.add((second, is_same))
            (name, text), image = self.names(second), self._image(second)
            other, kind = self.names(first)[0], 'repeated box' if is_same else 'two classes on one box'
            classes = f'{self.classes[index[second]]!r}, and {other} is {self.classes[index[first]]!r}'
            more = f' in image {short(image["id"])}' + ('' if is_same else f' is {classes}')
            self.findings.add(kind, f'{name}: {text}{more}', self._place(first, second))

    def _check_outliers(self, objects: np.ndarray) -> None:
        """Find areas and shapes that are far from those of the class: by medians, which outliers do not move."""
        content = self.content
        size, shape = np.zeros(len(objects), dtype=bool), np.zeros(len(objects), dtype=bool)
        for label in range(len(self.classes)):
            rows = np.flatnonzero(objects & (content.category_index == label))
            if len(rows) < ENOUGH:
                continue
            w, h = content.xywh[rows, 2:].T
            distance = np.abs(np.log(w * h) - np.median(np.log(w * h)))
            deviation = 1.4826 * np.median(distance)  # that of a normal distribution
            size[rows] = distance > max(DEVIATIONS * deviation, np.log(FACTOR))
            ratio = np.maximum(w / h, h / w)
            shape[rows] = (ratio > THIN) & (np.median(ratio) < USUAL)
        for kind, wrong in (('box of unusual size', size), ('box of unusual shape', shape)):
            self._add(kind, wrong, lambda k: f'{self._in_image(k)}, {self.classes[content.category_index[k]]!r}')

    def _add(self, kind: str, wrong: np.ndarray, example: Callable[[int], str]) -> None:
        rows = np.flatnonzero(wrong)
        for k in rows[:PICTURES].tolist():
            self.findings.add(kind, example(k), self._place(k))
        if len(rows) > PICTURES:
            self.findings.add_without_examples(kind, len(rows) - PICTURES)

    def _in_image(self, k: int) -> str:
        (name, text), image = self.names(k), self._image(k)
        return f'{name}: {text} in image {image["id"]} of {image["width"]}x{image["height"]}'

    def _image(self, k: int) -> dict:
        return self.content.images[self.content.image_index[k]]

    def _place(self, *rows: int) -> Place:
        boxes = [[x, y, x + w, y + h] for x, y, w, h in self.content.xywh[list(rows)].tolist()]
        labels = [self.classes[label] for label in self.content.category_index[list(rows)]]
        return Place(str(Path(self.folder, self._image(rows[0])['file_name'])), boxes, labels)


def overlapping(
    image: np.ndarray, xywh: np.ndarray, chosen: np.ndarray, *, least: float
) -> Iterator[tuple[int, int, float]]:
    """Pairs of boxes in one image with an IoU over ``least``, the earlier box first, and the IoU.

    Args:
        image: (M,) the image of every box.
        xywh: (M, 4). A box without area has no pair.
        chosen: (M,) bool, the boxes that are compared.
    """
    objects = np.flatnonzero(chosen & (xywh[:, 2:] > 0).all(axis=1))
    objects = objects[np.argsort(image[objects], kind='stable')]
    _, starts = np.unique(image[objects], return_index=True)
    for rows in np.split(objects, starts[1:]) if len(objects) else ():
        boxes = xywh[rows]
        for start in range(0, len(rows), ROWS) if len(rows) > 1 else ():
            part = boxes[start : start + ROWS]
            iou = mask.iou(part, boxes, [0] * len(boxes))
            for second, first in zip(*np.nonzero(iou > least), strict=True):
                if first < start + second:
                    yield int(rows[first]), int(rows[start + second]), float(iou[second, first])
