"""Planted label errors are ranked first: thirty squares of a grid, all found, and one mistake of each kind."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from frdet.errors import ConfigError
from frdet.insight.errors import Detected, Objects, Results
from frdet.insight.page import Page
from frdet.insight.report import label_errors_page
from frdet.insight.report.label_errors import (
    CLASS,
    NEVER,
    NO_OBJECT,
    TWICE,
    TWO_CLASSES,
    _share_around,
    suspects_of,
    trust,
    write_suspects,
)
from frdet.insight.report.run import analyse

CAT, DOG = 0, 1
COUNT = 30
KINDS = (NO_OBJECT, CLASS, TWICE, TWO_CLASSES, NEVER)


def square(left, top, side=40):
    return [left, top, left + side, top + side]


class Scene:
    """An image of 30 cats, 100 pixels apart, and a detection of each; ``annotate`` and ``detect`` add more."""

    def __init__(self):
        self.annotated, self.detected = [], []
        for k in range(COUNT):
            box = square(100 * (k % 6), 100 * (k // 6), 40 + k % 3)
            self.annotate(CAT, box)
            self.detect(CAT, box, 0.5 + k / 100)  # 0.5 to 0.79

    def annotate(self, label, box, crowd=False):
        self.annotated.append((label, box, crowd))
        return len(self.annotated) - 1

    def detect(self, label, box, score):
        self.detected.append((label, box, score))
        return len(self.detected) - 1

    def analysis(self):
        labels, boxes, crowd = zip(*self.annotated, strict=True)
        image = np.zeros(len(labels), int)
        truth = Objects(image, np.array(labels), np.array(boxes, float), np.array(crowd))
        labels, boxes, scores = zip(*self.detected, strict=True)
        found = Detected(np.zeros(len(labels), int), np.array(labels), np.array(boxes, float), np.array(scores))
        names = [f'a{k}' for k in range(len(image))]
        return analyse(Results([dict(id=7, file_name='seven.png')], ['cat', 'dog'], [1, 2], truth, found, names))

    def suspects(self, validations=3):
        """``validations`` that found each cat of the grid and nothing else."""
        found_by = np.tile(np.arange(len(self.annotated)) < COUNT, (validations, 1))
        return suspects_of(self.analysis(), found_by)

    def rows(self, kind, **kwargs):
        """Annotations and detection of the suspects of a kind."""
        return [(suspect.objects, suspect.detection) for suspect in self.suspects(**kwargs).kinds[kind]]


def test_right_annotations_are_no_suspects():
    assert Scene().suspects().kinds == {kind: [] for kind in KINDS}


def test_an_object_that_is_not_annotated():
    scene = Scene()
    second = scene.detect(DOG, square(650, 0), 0.7)
    scene.detect(CAT, square(655, 0), 0.65)  # the same place
    first = scene.detect(CAT, square(650, 200), 0.9)
    scene.detect(CAT, square(650, 400), 0.01)  # below the score of the best F1
    crowd = square(800, 0, 100)
    scene.annotate(CAT, crowd, crowd=True)
    scene.detect(CAT, square(820, 20), 0.95)
    assert scene.rows(NO_OBJECT) == [((), first), ((), second)]
    assert [suspect.score for suspect in scene.suspects().kinds[NO_OBJECT]] == [0.9, 0.7]


def test_a_wrong_class():
    scene = Scene()
    wrong = scene.annotate(CAT, square(650, 0))
    detection = scene.detect(DOG, square(650, 4), 0.8)
    scene.detect(DOG, square(650, 2), 0.6)  # says the same again
    scene.detect(DOG, square(0, 2), 0.9)  # on a cat that is found as a cat
    assert scene.rows(CLASS) == [((wrong,), detection)]
    assert scene.rows(NEVER) == []  # it is in the list once


def test_an_annotation_on_empty_ground():
    scene = Scene()
    planted = scene.annotate(CAT, square(650, 0))
    for kind in KINDS:
        assert scene.rows(kind) == ([((planted,), None)] if kind == NEVER else [])
    assert scene.suspects().kinds[NEVER][0].score == 1  # the 20 next in size are found, and nothing is detected there
    assert scene.rows(NEVER, validations=2) == []


def test_an_object_that_one_validation_found():
    scene = Scene()
    planted = scene.annotate(CAT, square(650, 0))
    found_by = np.zeros((3, planted + 1), dtype=bool)
    found_by[1, planted] = True
    assert suspects_of(scene.analysis(), found_by).kinds[NEVER] == []


def test_hard_objects_come_later():
    """Five giants, of which one detection finds one; a cat on another one; a dim cat; a cat that nothing shows."""
    scene = Scene()
    covered = scene.annotate(CAT, square(10, 0))  # the first cat, which scores 0.5, overlaps it by IoU 0.6
    giants = [scene.annotate(DOG, square(left, 300, 150)) for left in range(650, 1650, 200)]
    scene.detect(DOG, square(650, 300, 150), 0.7)
    dim, hidden = scene.annotate(CAT, square(650, 0)), scene.annotate(CAT, square(800, 0))
    scene.detect(CAT, square(650, 20), 0.1)  # IoU 0.33
    scene.detect(DOG, square(800, 35), 0.9)  # by 5 of 75 rows: IoU 0.07
    suspects = scene.suspects().kinds[NEVER]
    # Of the twenty cats that are nearest in size two are missed; of the other four giants one is found.
    expected = {hidden: 0.9, dim: 0.9 * 0.9, covered: 0.9 * 0.5, **dict.fromkeys(giants[1:], 0.25)}
    assert {suspect.objects[0]: suspect.score for suspect in suspects} == pytest.approx(expected)
    assert [suspect.objects[0] for suspect in suspects] == list(expected)


def test_shares_of_neighbours():
    """Without the flag itself, and with fewer neighbours at the ends."""
    flags = np.array([True, False, True, True])
    assert _share_around(flags, 1).tolist() == [0, 1, 0.5, 1]
    assert _share_around(flags, 9) == pytest.approx([2 / 3, 1, 2 / 3, 2 / 3])
    assert _share_around(flags[:1], 9).tolist() == [0]


def test_crowds_are_no_neighbours():
    """Ten crowds of the size of the planted cat, and a detection in each, change nothing."""
    scene = Scene()
    planted = scene.annotate(CAT, square(650, 0))
    wrong = scene.detect(DOG, square(650, 200), 0.9)
    for k in range(10):
        scene.annotate(CAT, square(1000 + 100 * k, 0), crowd=True)
        scene.detect(CAT, square(1010 + 100 * k, 10, 20), 0.9)
    assert [(one.objects, one.score) for one in scene.suspects().kinds[NEVER]] == [((planted,), 1)]
    assert trust(scene.analysis())[wrong] == 1  # all thirty other ones


def test_boxes_drawn_twice():
    scene = Scene()
    again = scene.annotate(CAT, square(0, 2))  # 38 of 42 rows: IoU 0.905
    same = scene.annotate(CAT, square(200, 0, 42))  # exactly that of the third cat
    dog = scene.annotate(DOG, square(301, 1, 40))
    beside = scene.annotate(CAT, square(500, 410, 41))  # 10 of 41 rows beside the last cat: IoU 0.6
    assert scene.rows(TWICE) == [((2, same), None), ((0, again), None)]
    assert [round(one.score, 3) for one in scene.suspects().kinds[TWICE]] == [1, 0.905]
    assert scene.rows(TWO_CLASSES) == [((3, dog), None)]
    assert scene.rows(NEVER) == [((beside,), None)]  # the other ones are in the list already


def planted():
    scene = Scene()
    scene.annotate(CAT, square(650, 0))
    scene.detect(DOG, square(650, 0), 0.8)
    scene.annotate(CAT, square(0, 0))
    scene.detect(CAT, square(650, 200.25), 0.9)
    return scene


def test_the_file(tmp_path):
    scene = planted()
    write_suspects(scene.analysis(), scene.suspects(), tmp_path / 'list.csv')
    with open(tmp_path / 'list.csv', newline='') as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        (NO_OBJECT, '1', '7', 'seven.png', '', '', 'cat', '650.0', '200.2', '690.0', '240.2', '0.9'),
        (CLASS, '1', '7', 'seven.png', 'a30', 'cat', 'dog', '650.0', '0.0', '690.0', '40.0', '0.8'),
        (TWICE, '1', '7', 'seven.png', 'a0 a31', 'cat', '', '0.0', '0.0', '40.0', '40.0', '1.0'),
    ]
    with pytest.raises(ConfigError, match='cannot be written'):
        write_suspects(scene.analysis(), scene.suspects(), tmp_path / 'gone/list.csv')


def test_the_section(monkeypatch):
    """Crops show the whole place of a suspect, and each kind has its table."""
    picture = np.zeros((500, 800, 3), np.uint8)
    picture[:, 600:] = 255
    monkeypatch.setattr(label_errors_page, 'read_picture', lambda *_: picture)
    scene, page = planted(), Page('page')
    run = SimpleNamespace(log=SimpleNamespace(val=[{}] * 2))
    label_errors_page.add_suspects(page, run, scene.analysis(), scene.suspects(validations=2))
    blocks = page.sections[0].blocks
    tables = {block['caption'].split(':')[0]: block for block in blocks if block['kind'] == 'table'}
    assert set(tables) == {'Not annotated', 'Another class', 'Annotated twice'}
    assert tables['Not annotated']['head'] == ['rank', 'image', 'file', 'found as', 'score', 'right']
    # All other detections are within 100: 30 of 31 are right.
    assert tables['Not annotated']['items'][0].cells == [1, '7', 'seven.png', 'cat', 0.9, '97%']
    assert tables['Another class']['items'][0].cells[3:] == ['a30', 'cat', 'dog', 0.8, '97%']
    texts = [block['text'] for block in blocks if block['kind'] == 'text']
    assert 'of 2 validations, 2 did' in texts[-1] and not any('of 3' in text for text in texts)
    crops = [tile.image for block in blocks if block['kind'] == 'gallery' for tile in block['items']]
    # 80 pixels around each box, and 81 rows from 180.25 to 260.25; the second has 60 rows, the third is in a corner.
    assert [crop.shape[:2] for crop in crops] == [(224, 221), (168, 224), (224, 224)]


def test_boxes_of_a_crop(monkeypatch):
    """The detection is solid and its object dashed, or the objects are solid. Other places are left out."""
    drawn = []

    def note(image, *boxes, dashed, **more):
        drawn.append((*boxes, dashed))

    monkeypatch.setattr(label_errors_page, 'draw_boxes', note)
    scene, picture = planted(), np.zeros((500, 800, 3), np.uint8)
    for kind in (CLASS, TWICE):
        label_errors_page._crop(picture, scene.analysis(), scene.suspects().kinds[kind][0])
    (boxes, labels, dashed), (_, twice, both) = drawn
    assert (labels.tolist(), dashed.tolist()) == ([CAT, DOG], [True, False])
    # The crop begins at 630 and has 2.8 pixels for one.
    assert np.allclose(boxes, [[56, 0, 168, 112]] * 2)
    assert (twice.tolist(), both.tolist()) == ([CAT, CAT], [False, False])


def test_masks_of_a_crop(monkeypatch):
    """Each lies in its box: here every mask is its whole box."""
    drawn = []
    monkeypatch.setattr(label_errors_page, 'draw_boxes', lambda *args, masks, **more: drawn.append((args[1], masks)))
    scene, picture = planted(), np.zeros((500, 800, 3), np.uint8)
    analysis = scene.analysis()
    masks = [
        [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in of.boxes.tolist()]
        for of in (analysis.results.truth, analysis.results.found)
    ]
    images = [dict(id=7, file_name='seven.png', height=500, width=800)]
    results = analysis.results._replace(images=images, truth_masks=masks[0], found_masks=masks[1])
    label_errors_page._crop(picture, analysis._replace(results=results), scene.suspects().kinds[CLASS][0])
    (boxes, pixels), *_ = drawn
    assert len(boxes) == len(pixels) == 2
    for box, mask in zip(boxes / 2.8, pixels, strict=True):  # the crop has 2.8 pixels for one
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        assert np.allclose([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], box, atol=1)


@pytest.mark.parametrize(('box', 'expected'), [
    ([100, 100, 140, 120], [[80, 70], [160, 150]]),  # twice the longer side
    ([100, 100, 110, 110], [[73, 73], [137, 137]]),  # at least 64 pixels
    ([0, 0, 300, 200], [[0, 0], [300, 200]]),  # the whole image
    ([310, 210, 320, 220], [[283, 183], [300, 200]]),  # a detection may leave the image
    ([400, 100, 410, 110], [[299, 73], [300, 137]]),
])  # fmt: skip
def test_windows(box, expected):
    assert label_errors_page._window(np.array(box, float), (200, 300)).tolist() == expected
