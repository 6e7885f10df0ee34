"""Reading, matches, TIDE's split, confusions: a scene by hand, random ones by slow loops, AP by pycocotools."""

import json

import numpy as np
import pytest

from frdet.errors import DataError
from frdet.insight.errors import (
    KINDS,
    Detected,
    Match,
    Objects,
    confusion_matrix,
    kinds_of,
    match,
    read_results,
    split_errors,
)  # fmt: skip
from tests.evaluation.test_coco_metric import drawn, evaluate
from tests.insight.scene import CAT, DETECTIONS, DOG, A, B, C, F, G, random_scene, scene, slow_iou

TRUTH = {
    'images': [
        dict(id=7, file_name='b.jpg', height=40, width=60),
        dict(id=3, file_name='a.jpg', height=40, width=60),
        dict(id=9, file_name='c.jpg', height=40, width=60),
    ],
    'categories': [dict(id=5, name='dog'), dict(id=2, name='cat'), dict(id=8, name='cow')],
    'annotations': [
        dict(image_id=7, category_id=5, bbox=[1, 2, 10, 20], iscrowd=1),
        dict(image_id=3, category_id=2, bbox=[0, 0, 4, 4]),
        dict(image_id=9, category_id=2, bbox=[0, 0, 4, 4]),
        dict(image_id=3, category_id=8, bbox=[0, 0, 4, 4]),
    ],
}
FOUND = [
    dict(image_id=7, category_id=2, bbox=[1, 2, 3, 4], score=0.5),
    dict(image_id=9, category_id=2, bbox=[], score=1),
]


@pytest.fixture
def files(tmp_path):
    (tmp_path / 'truth.json').write_text(json.dumps(TRUTH))
    (tmp_path / 'found.json').write_text(json.dumps(FOUND))
    return tmp_path / 'truth.json', tmp_path / 'found.json'


def test_images_and_classes_that_were_evaluated(files):
    results = read_results(*files, img_ids=[7, 3], classes=['dog', 'N/A', 'cat'])
    assert [image['id'] for image in results.images] == [3, 7]
    assert (results.classes, results.cat_ids) == (['dog', 'cat'], [5, 2])
    assert results.truth.image.tolist() == [1, 0] and results.truth.label.tolist() == [0, 1]
    assert results.truth.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 4, 4]]
    assert results.truth.crowd.tolist() == [True, False]
    assert [array.tolist() for array in results.found] == [[1], [1], [[1, 2, 4, 6]], [0.5]]


@pytest.mark.parametrize(
    ('content', 'words'),
    [('{', 'is not JSON'), ('{}', 'a list of detections'), ('[{"image_id": 7, "category_id": 2}]', 'bbox and score')],
)
def test_files_that_are_wrong(files, content, words):
    files[1].write_text(content)
    with pytest.raises(DataError, match=words):
        read_results(*files)


def test_file_that_is_gone(files):
    files[1].unlink()
    with pytest.raises(DataError, match=r'found\.json cannot be read'):
        read_results(*files)


def slow_match(found, truth, threshold=0.5):
    """COCO's matching as its paper's code words it: by score, the best free object, a crowd only if there is none."""
    taken, ignored = np.full(len(found.scores), -1), np.zeros(len(found.scores), bool)
    for row in sorted(range(len(found.scores)), key=lambda row: -found.scores[row]):
        best, place = threshold, -1
        for column in range(len(truth.label)):
            if (found.image[row], found.label[row]) != (truth.image[column], truth.label[column]):
                continue
            iou = slow_iou(found.boxes[row], truth.boxes[column], truth.crowd[column])
            if truth.crowd[column]:
                ignored[row] |= iou >= threshold
            elif column not in taken and iou >= best:
                best, place = iou, column
        taken[row] = place
    return taken, ignored & (taken < 0)


def test_matches_of_the_scene_by_hand():
    found, truth = scene()
    matched = match(found, truth, num_classes=2)
    assert matched.truth.tolist() == [A, -1, -1, -1, -1, -1, F, G]
    assert not matched.ignored.any()


@pytest.mark.parametrize('seed', range(5))
def test_matches_of_random_scenes(seed):
    found, truth = random_scene(seed)
    matched = match(found, truth, num_classes=3)
    taken, ignored = slow_match(found, truth)
    assert matched.truth.tolist() == taken.tolist()
    assert matched.ignored.tolist() == ignored.tolist()
    assert ignored.any() and (taken >= 0).sum() > 10


def test_matches_of_nothing():
    none = np.zeros(0, int)
    found, truth = scene()
    no_found = Detected(none, none, np.zeros((0, 4)), np.zeros(0))
    no_truth = Objects(none, none, np.zeros((0, 4)), none.astype(bool))
    assert match(no_found, truth, num_classes=2).truth.shape == (0,)
    assert match(found, no_truth, num_classes=2).wrong.all()
    assert match(no_found, no_truth, num_classes=2).truth.shape == (0,)


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
    assert (errors.ap, errors.counts['missed']) == (0, len(truth.label))
    errors = split(found, no_truth)
    assert errors.ap == 0 and set(errors.found) == {KINDS.index('background')}
    assert set(errors.cost.values()) == {0}
    assert split(no_found, no_truth).counts == dict.fromkeys(KINDS, 0)


@pytest.mark.parametrize('seed', range(3))
def test_ap_is_pycocotools(tmp_path, seed):
    content, samples, classes = drawn(np.random.default_rng(seed))
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    figures = evaluate(tmp_path / 'truth.json', samples, classes, outfile=str(tmp_path / 'found.json'))
    results = read_results(tmp_path / 'truth.json', tmp_path / 'found.json', classes=classes)
    errors = split(results.found, results.truth, len(classes))
    assert errors.ap == pytest.approx(figures['coco/bbox_mAP_50'])


def confusion(found, truth, score):
    matched = match(found, truth, num_classes=2)
    return confusion_matrix(found, truth, matched, num_classes=2, score=score).tolist()


def test_confusion_of_the_scene_by_hand():
    # From 0.35 on: A found, B taken for a dog, C, D and G missed, and the dog, whose detection scores 0.3; the
    # duplicate, the one beside C and the one in nothing are cats of nothing, the one beside D is a dog of nothing.
    assert confusion(*scene(), score=0.35) == [[1, 1, 3], [0, 0, 1], [3, 1, 0]]
    assert confusion(*scene(), score=0.1) == [[2, 1, 2], [0, 1, 0], [3, 1, 0]]
    assert confusion(*scene(), score=0.95) == [[0, 0, 5], [0, 0, 1], [0, 0, 0]]
    assert confusion(*scene(), score=0.7) == [[1, 1, 3], [0, 0, 1], [1, 0, 0]]  # a score of 0.7 counts


def test_the_better_score_goes_first_and_crowds_are_left_out():
    box, far = [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]
    truth = Objects(np.zeros(2, int), np.array([CAT, DOG]), np.array([box, far]), np.array([False, True]))
    boxes, scores = np.array([box, box, far]), np.array([0.9, 0.5, 0.7])
    found = Detected(np.zeros(3, int), np.array([DOG, CAT, DOG]), boxes, scores)
    assert confusion(found, truth, score=0.1) == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    found = Detected(np.zeros(3, int), np.array([CAT, DOG, DOG]), boxes, scores)
    assert confusion(found, truth, score=0.1) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_confusion_without_detections():
    found, truth = scene()
    nothing = Detected(*(column[:0] for column in found))
    assert confusion(nothing, truth, score=0.1) == [[0, 0, 5], [0, 0, 1], [0, 0, 0]]


def test_kinds_follow_the_iou_of_the_matching():
    """The second detection has IoU 0.6 with the object. Unmatched, it is a duplicate at 0.5, and a poor box at 0.75."""
    truth = Objects(np.array([0]), np.array([0]), np.array([[0.0, 0, 10, 10]]), np.array([False]))
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 6, 10]])
    found = Detected(np.zeros(2, int), np.array([0, 0]), boxes, np.array([0.9, 0.8]))
    matched = Match(np.array([0, -1]), np.array([False, False]))
    for iou, kind in ((0.5, 'duplicate'), (0.75, 'localisation')):
        kinds, about = kinds_of(found, truth, matched, iou)
        assert kinds.tolist() == [-1, KINDS.index(kind)]
        assert about.tolist() == [-1, -1 if kind == 'duplicate' else 0]
