"""Sampled values are those of an evaluator that gets a copy of an image for each time it was drawn."""

import math

import hotcoco
import numpy as np
import pytest

from frdet.evaluation.backends import Columns, Numbered, hotcoco_evaluator, with_pycocotools
from frdet.insight.bootstrap import SAMPLED, draw, sampled_ap

IMAGES, CLASSES = 16, 3
AP = SAMPLED['bbox_mAP']


def task(seed, images=IMAGES):
    """The same objects of all sizes, crowds and ignored ones among them; detections by the seed, at and beside them."""
    random = np.random.default_rng(0)
    count = 5 * images
    image, category = random.integers(1, images + 1, count), random.integers(1, CLASSES + 1, count)
    sides = 2.0 ** random.uniform(4, 7.5, (count, 1))
    boxes = np.hstack([random.uniform(0, 300, (count, 2)), sides, sides])
    area = np.where(random.random(count) < 0.1, -1.0, boxes[:, 2] * boxes[:, 3])
    truth = Columns(image, category, boxes, area, random.random(count) < 0.1)
    random = np.random.default_rng(seed)
    near = np.column_stack([image, boxes + random.normal(0, 0.06, boxes.shape) * sides, random.random(count), category])
    beside = near[:40] + [0, 90, 90, 0, 0, -0.2, 0]
    tested = [image for image in range(1, images + 1) if image != 3]
    return Numbered(
        images, CLASSES, truth, np.concatenate([near[random.random(count) < 0.8], beside]), tested, [1, 10, 100]
    )


def copied(given, counts):
    """Each tested image as often as ``counts`` says."""
    places = np.repeat(given.tested, counts)
    rows = [np.flatnonzero(given.truth.image == image) for image in places]
    found = [given.found[given.found[:, 0] == image] for image in places]
    for number, table in enumerate(found, start=1):
        table[:, 0] = number
    numbers = np.repeat(np.arange(1, len(places) + 1), [len(one) for one in rows])
    columns = (column[np.concatenate(rows)] for column in given.truth[1:])
    every = list(range(1, len(places) + 1))
    return Numbered(len(places), CLASSES, Columns(numbers, *columns), np.concatenate(found), every, given.max_dets)


def slowly(given, area, iou):
    evaluation = with_pycocotools(given)
    precision = evaluation.precision[..., area, -1]
    if iou is not None:
        precision = precision[np.isclose(evaluation.iou_thresholds, iou)]
    defined = precision[precision > -1]
    return defined.mean() if len(defined) else math.nan


@pytest.mark.parametrize('name', SAMPLED)
def test_all_images_as_pycocotools(name, capsys):
    area, iou = SAMPLED[name]
    found = sampled_ap(task(1), np.ones((1, IMAGES - 1), int), area=area, iou=iou)
    assert found == pytest.approx([slowly(task(1), area, iou)], abs=1e-12)


@pytest.mark.parametrize('name', ['bbox_mAP', 'bbox_mAP_l'])
def test_images_count_as_often_as_they_are_drawn(name, capsys):
    area, iou = SAMPLED[name]
    counts = draw(IMAGES - 1, 4)
    assert counts.max() > 2 and counts.min() == 0
    expected = [slowly(copied(task(1), row), area, iou) for row in counts]
    assert sampled_ap(task(1), counts, area=area, iou=iou) == pytest.approx(expected, abs=1e-12)


def test_samples():
    counts = draw(50, 400)
    assert counts.shape == (401, 50) and (counts[0] == 1).all() and (counts.sum(axis=1) == 50).all()
    assert (counts == draw(50, 400)).all()
    # The chance that an image is not in a sample is (1 - 1/50)^50 = 0.364.
    assert (counts[1:] == 0).mean() == pytest.approx(0.364, abs=0.01)


def test_sample_without_objects():
    given = task(1)
    image = int(given.truth.image[0])
    alone = given._replace(truth=Columns(*(column[:1] for column in given.truth)))
    counts = np.array([[one != image for one in given.tested], [True] * (IMAGES - 1)], dtype=int)
    assert np.isnan(sampled_ap(alone, counts, area=0, iou=None)).tolist() == [True, False]


def test_no_detection():
    empty = task(1)._replace(found=np.zeros((0, 7)))
    assert sampled_ap(empty, draw(IMAGES - 1, 2), area=0, iou=None).tolist() == [0, 0, 0]


def test_hotcoco_counts_an_image_once():
    """Its samples are sets of images. The variance of a mean over such a set is 1 / (e - 1) of the bootstrap's.

    Once it counts the draws, ``hotcoco.compare`` can replace this module.
    """
    base, other = task(1, images=60), task(2, images=60)
    counts = draw(59, 300)
    own = sampled_ap(other, counts, area=0, iou=None) - sampled_ap(base, counts, area=0, iou=None)
    compared = hotcoco.compare(hotcoco_evaluator(base), hotcoco_evaluator(other), n_bootstrap=300, seed=0)
    assert compared['deltas']['AP'] == pytest.approx(own[0])
    assert compared['ci']['AP']['std_err'] / own[1:].std() == pytest.approx(math.sqrt(1 / (math.e - 1)), abs=0.1)
