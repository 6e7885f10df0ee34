"""TIDE's split: the scene by hand, random ones by a slow loop, AP by pycocotools."""

import numpy as np
import pytest

from frdet.insight.errors import KINDS, Detected, Objects, match, read_results, split_errors
from tests.evaluation.test_coco_metric import drawn, evaluate
from tests.insight.errors.scene import DETECTIONS, MISSED, B, C, random_scene, scene, slow_iou
from tests.insight.errors.test_matching import slow_match


def split(found, truth, num_classes=2):
    return split_errors(found, truth, match(found, truth, num_classes=num_classes), num_classes=num_classes)


@pytest.mark.parametrize('order', [slice(None), slice(None, None, -1)])
def test_one_of_each_kind(order):
    errors = split(*scene(order))
    kinds = [KINDS[kind] if kind >= 0 else None for kind in errors.found]
    assert kinds[order] == [row[4] for row in DETECTIONS]
    about = np.full(len(DETECTIONS), -1)
    about[[2, 3]] = B, C
    assert errors.about[order].tolist() == about.tolist()
    assert np.flatnonzero(errors.missed).tolist() == MISSED
    assert errors.counts == dict.fromkeys(KINDS, 1)


def test_costs_by_hand():
    """Five cats: recall 0.2 fills 21 of 101 bars, each further cat found 20 more.

    Cats by score: right, duplicate, localisation, background, right: precisions 1 and 2/5. The dog comes after two
    errors: precision 1/3.
    """
    cats, dogs = (21 + 20 * 2 / 5) / 101, 1 / 3
    mended = {
        # The dog of 0.7 becomes a cat: right, duplicate, right, localisation, background, right: 1, 2/3, 3/6.
        'classification': ((21 + 20 * 2 / 3 + 20 * 3 / 6) / 101, 1 / 2),
        # right, duplicate, right, background, right: 1, 2/3, 3/5.
        'localisation': ((21 + 20 * 2 / 3 + 20 * 3 / 5) / 101, dogs),
        'both': (cats, 1 / 2),
        # One error less before the second cat: 2/4.
        'duplicate': ((21 + 20 * 2 / 4) / 101, dogs),
        'background': ((21 + 20 * 2 / 4) / 101, dogs),
        # Four cats are left: recalls 0.25 and 0.5, 26 and 25 bars.
        'missed': ((26 + 25 * 2 / 5) / 101, dogs),
    }
    errors = split(*scene())
    assert errors.ap == pytest.approx((cats + dogs) / 2)
    assert errors.cost == pytest.approx({kind: sum(aps) / 2 - errors.ap for kind, aps in mended.items()})


@pytest.mark.parametrize('seed', range(5))
def test_kinds_of_random_scenes(seed):
    found, truth = random_scene(seed)
    taken, ignored = slow_match(found, truth)
    errors = split(found, truth, num_classes=3)
    expected = []
    for row in range(len(found.scores)):
        best = {True: 0.0, False: 0.0}
        for column in np.flatnonzero((truth.image == found.image[row]) & ~truth.crowd):
            is_same = bool(truth.label[column] == found.label[row])
            best[is_same] = max(best[is_same], slow_iou(found.boxes[row], truth.boxes[column]))
        same, other = best[True], best[False]
        if taken[row] >= 0 or ignored[row]:
            expected.append(-1)
        elif 0.1 <= same < 0.5:
            expected.append(KINDS.index('localisation'))
        elif other >= 0.5:
            expected.append(KINDS.index('classification'))
        elif same >= 0.5:
            expected.append(KINDS.index('duplicate'))
        else:
            expected.append(KINDS.index('both' if other >= 0.1 else 'background'))
    assert errors.found.tolist() == expected
    assert len(set(expected)) == 6
    mentioned = set(taken.tolist()) | set(errors.about.tolist())
    missed = [k for k in range(len(truth.label)) if k not in mentioned and not truth.crowd[k]]
    assert np.flatnonzero(errors.missed).tolist() == missed
    # The counts and the cost are hotcoco's, which is to call everything by the same kind.
    counts = [expected.count(place) for place in range(5)] + [len(missed)]
    assert errors.counts == dict(zip(KINDS, counts, strict=True))


def test_beside_a_crowd_is_nothing():
    """A detection that overlaps a crowd by less than half is about nothing that counts; one inside is no error."""
    zero, box = np.zeros(1, int), np.array([[0.0, 0.0, 10.0, 10.0]])
    crowd = Objects(zero, zero, box, np.array([True]))
    found = Detected(
        np.zeros(2, int), np.zeros(2, int), np.array([[7.0, 0.0, 17.0, 10.0], box[0]]), np.array([0.9, 0.8])
    )
    errors = split(found, crowd)
    assert errors.found.tolist() == [KINDS.index('background'), -1]
    assert errors.counts == dict.fromkeys(KINDS, 0) | dict(background=1)


def test_no_detection_and_no_object():
    found, truth = scene()
    none = np.zeros(0, int)
    no_found = Detected(none, none, np.zeros((0, 4)), np.zeros(0))
    no_truth = Objects(none, none, np.zeros((0, 4)), none.astype(bool))
    errors = split(no_found, truth)
    assert (errors.ap, errors.counts['missed'], errors.missed.all()) == (0, len(truth.label), True)
    errors = split(found, no_truth)
    assert errors.ap == 0 and set(errors.found) == {KINDS.index('background')}
    assert set(errors.cost.values()) == {0}
    assert split(no_found, no_truth).counts == dict.fromkeys(KINDS, 0)


@pytest.mark.parametrize('seed', range(3))
def test_ap_is_pycocotools(tmp_path, seed):
    import json

    content, samples, classes = drawn(np.random.default_rng(seed))
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    figures = evaluate(tmp_path / 'truth.json', samples, classes, outfile=str(tmp_path / 'found.json'))
    results = read_results(tmp_path / 'truth.json', tmp_path / 'found.json', classes=classes)
    errors = split(results.found, results.truth, len(classes))
    assert errors.ap == pytest.approx(figures['coco/bbox_mAP_50'])
