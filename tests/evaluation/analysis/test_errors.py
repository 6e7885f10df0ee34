"""TIDE's split: the scene by hand, random ones by a slow loop, AP by pycocotools."""

import numpy as np
import pytest

from frdet.evaluation.analysis import KINDS, match, overlaps, read_results, split_errors
from tests.evaluation.analysis.scene import DETECTIONS, MISSED, B, C, random_scene, scene, slow_iou
from tests.evaluation.analysis.test_matching import slow_match
from tests.evaluation.test_coco_metric import drawn, evaluate


def split(found, truth, num_classes=2):
    pairs = overlaps(found, truth, least=0.1)
    return split_errors(found, truth, pairs, match(found, truth, pairs), num_classes=num_classes)


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


@pytest.mark.parametrize('seed', range(3))
def test_ap_is_pycocotools(tmp_path, seed):
    import json

    content, samples, classes = drawn(np.random.default_rng(seed))
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    figures = evaluate(tmp_path / 'truth.json', samples, classes, outfile=str(tmp_path / 'found.json'))
    results = read_results(tmp_path / 'truth.json', tmp_path / 'found.json', classes=classes)
    errors = split(results.found, results.truth, len(classes))
    assert errors.ap == pytest.approx(figures['coco/bbox_mAP_50'])
