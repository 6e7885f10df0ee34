"""hotcoco's arrays are those of pycocotools, to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frdet.errors import ConfigError
from frdet.evaluation import CocoMetric
from frdet.evaluation.backends import Columns, Numbered, with_hotcoco, with_pycocotools

IMAGES, CLASSES = 6, 5
MAX_DETS = [1, 10, 100]


def drawn(
    seed, *, objects=40, found=120, images=IMAGES, max_dets=MAX_DETS, ties=20, crowd=0.15, ignored=0.1, used=CLASSES
):
    """Objects of every size, areas at the borders of COCO's ranges among them, and detections around them.

    ``ties``: how many scores there are; 0 for as many as detections. ``used``: classes that have objects.
    """
    rng = np.random.default_rng(seed)
    side = np.exp(rng.uniform(np.log(4), np.log(200), (objects, 2)))
    side[rng.random(objects) < 0.2] = rng.choice([32, 96, 0])
    boxes = np.concatenate([rng.uniform(0, 200, (objects, 2)), side], axis=1).round(2)
    area = boxes[:, 2] * boxes[:, 3]
    area[rng.random(objects) < ignored] = -1
    truth = Columns(
        rng.integers(1, images + 1, objects),
        rng.integers(1, used + 1, objects),
        boxes,
        area,
        rng.random(objects) < crowd,
    )
    about = rng.integers(objects, size=found) if objects else np.zeros(0, int)
    near = boxes[about] + rng.normal(0, 0.1, (len(about), 4)) * np.tile(side[about], 2)
    far = rng.uniform(0, 200, (found - len(about), 4))
    places = np.concatenate([truth.image[about], rng.integers(1, images + 1, len(far))])
    labels = np.concatenate([truth.category[about], rng.integers(1, CLASSES + 1, len(far))])
    labels = np.where(rng.random(found) < 0.8, labels, rng.integers(1, CLASSES + 1, found))
    scores = rng.integers(1, ties + 1, found) / ties if ties else rng.random(found)
    table = np.column_stack([places, np.concatenate([near, far]), scores, labels]).astype(float)
    table[rng.random(found) < 0.05, 3:5] = 0  # boxes without a size
    return Numbered(
        images, CLASSES, truth, table[np.argsort(places, kind='stable')], list(range(1, images + 1)), max_dets
    )


def assert_same(task):
    ours, reference = with_hotcoco(task), with_pycocotools(task)
    for name in ('precision', 'recall', 'iou_thresholds'):
        one, other = (getattr(result, name) for result in (ours, reference))
        assert one.dtype == other.dtype and np.array_equal(one, other), name
    assert ours.cat_ids == reference.cat_ids
    return reference


CASES = {
    'all kinds': dict(),
    'no ties': dict(ties=0),
    'one score for all': dict(ties=1),
    'no detection': dict(found=0),
    'no object': dict(objects=0),
    'neither': dict(objects=0, found=0),
    'crowds alone': dict(crowd=1),
    'no crowd': dict(crowd=0),
    'objects to be ignored alone': dict(ignored=1),
    'classes without an object': dict(used=2),
    'few objects, many detections': dict(objects=2, found=400),
    'over 100 of a class': dict(objects=30, found=900, images=1, used=1),
    'up to 300': dict(objects=30, found=900, images=1, used=1, max_dets=[1, 100, 300]),
    'few counted': dict(max_dets=[1, 2, 3]),
    'one object each, found or not': dict(objects=4, found=4, crowd=0, ignored=0),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('seed', range(4))
def test_arrays_are_equal(case, seed):
    assert_same(drawn(seed, **CASES[case]))


def test_the_cases_are_what_they_say():
    assert (drawn(0).truth.area < 0).any() and drawn(0).truth.crowd.any()
    assert {1024, 9216} & set(np.concatenate([drawn(seed).truth.area for seed in range(9)]))
    many = drawn(0, **CASES['over 100 of a class']).found
    assert np.bincount(many[:, 6].astype(int)).max() > 300
    assert (with_pycocotools(drawn(0, **CASES['no object'])).precision == -1).all()
    # pycocotools divides by the number of detections plus 2e-16, so the first one right has not quite precision 1.
    precision = with_pycocotools(drawn(1, **CASES['one object each, found or not'])).precision
    assert ((precision < 1) & (precision > 0.999)).any()


def test_images_that_were_not_tested():
    task = drawn(7)
    assert_same(task._replace(tested=[2, 5, 6]))
    assert not np.array_equal(with_hotcoco(task).precision, with_hotcoco(task._replace(tested=[2, 5, 6])).precision)


@given(
    seed=st.integers(0, 2**32 - 1), objects=st.integers(0, 30), found=st.integers(0, 60), ties=st.integers(0, 5),
    images=st.integers(1, 4), used=st.integers(1, CLASSES),
    max_dets=st.lists(st.integers(1, 40), min_size=3, max_size=3),
)  # fmt: skip
def test_any_task(max_dets, **sizes):
    assert_same(drawn(max_dets=sorted(max_dets), **sizes))


def test_nothing_is_printed(capfd):
    """hotcoco prints what it doubts about a data set or about settings; frdet says these things itself."""
    with_hotcoco(drawn(0, max_dets=[1, 2, 3]))
    assert ''.join(capfd.readouterr()) == ''


def test_the_former_name():
    with pytest.warns(FutureWarning, match="'faster_coco_eval' is gone. 'hotcoco' gives the same results"):
        metric = CocoMetric(backend='faster_coco_eval')
    assert metric.backend == CocoMetric().backend == 'hotcoco'
    with pytest.raises(ConfigError, match="backend is 'fast', expected hotcoco or pycocotools"):
        CocoMetric(backend='fast')
