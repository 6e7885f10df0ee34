"""One image with an error of each kind, small enough to work out by hand."""

import numpy as np

from frdet.insight.errors import Detected, Objects

CAT, DOG = 0, 1
SIDE = 100
#: Objects: class, left, top; squares of 100 pixels.
A, B, C, D, F, G = range(6)
OBJECTS = [(CAT, 0, 0), (CAT, 200, 0), (CAT, 400, 0), (CAT, 600, 0), (DOG, 0, 500), (CAT, 0, 300)]
#: Detections by descending score: class, left, top, score, kind of error.
DETECTIONS = [
    (CAT, 0, 0, 0.9, None),  # A
    (CAT, 0, 0, 0.8, 'duplicate'),  # A again
    (DOG, 200, 0, 0.7, 'classification'),  # B
    (CAT, 450, 0, 0.6, 'localisation'),  # C, IoU 50 / 150
    (DOG, 650, 0, 0.5, 'both'),  # D, IoU 50 / 150
    (CAT, 900, 900, 0.4, 'background'),
    (DOG, 0, 500, 0.3, None),  # F
    (CAT, 0, 300, 0.2, None),  # G
]
#: D alone: B and C have a detection that is about them.
MISSED = [D]


def squares(rows):
    corners = np.array([row[1:3] for row in rows], dtype=float)
    return np.concatenate([corners, corners + SIDE], axis=1)


def scene(order=slice(None)):
    """Detections, in any order, and objects."""
    rows = np.arange(len(DETECTIONS))[order]
    chosen = [DETECTIONS[row] for row in rows]
    label, score = (np.array([row[k] for row in chosen]) for k in (0, 3))
    found = Detected(np.zeros(len(chosen), int), label, squares(chosen), score)
    zeros = np.zeros(len(OBJECTS), int)
    return found, Objects(zeros, np.array([row[0] for row in OBJECTS]), squares(OBJECTS), zeros.astype(bool))


def random_scene(seed, images=12, classes=3):
    """Objects, crowds among them, and detections around and beside them; some share a score."""
    rng = np.random.default_rng(seed)
    count = 40
    corners = rng.uniform(0, 150, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 80, (count, 2))], axis=1)
    image, label = rng.integers(images, size=count), rng.integers(classes, size=count)
    truth = Objects(image, label, boxes, rng.random(count) < 0.25)
    about = rng.integers(count, size=150)
    moved = boxes[about] + rng.normal(0, 14, (150, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    found_label = np.where(rng.random(150) < 0.7, label[about], rng.integers(classes, size=150))
    return Detected(image[about], found_label, moved, rng.integers(1, 400, 150) / 400), truth


def slow_iou(box, other, crowd=False):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    common = max(width, 0) * max(height, 0)
    area, area_other = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return common / (area if crowd else area + area_other - common)
