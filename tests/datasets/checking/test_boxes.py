"""What is wrong with boxes of any format, counted by hand."""

import numpy as np
import pytest

from frdet.datasets import Annotations
from frdet.datasets.checking import Findings, Place
from frdet.datasets.checking import boxes as checking
from frdet.datasets.checking.annotations import names_of
from frdet.datasets.checking.boxes import BoxCheck


def check(boxes, *, labels=None, images=None, **kwargs):
    """The findings in ``boxes``, xyxy, of images 0 and 1 of 100 x 80 pixels."""
    content = Annotations(
        images=[dict(id=k, file_name=f'{k}.png', height=80, width=100) for k in range(2)],
        categories=['cat', 'dog'],
        boxes=np.array(boxes, dtype=float).reshape(-1, 4),
        image_index=images or [0] * len(boxes),
        category_index=labels or [0] * len(boxes),
        **kwargs,
    )
    findings = Findings()
    BoxCheck(content, names_of(content), 'folder', findings).run()
    return findings


RIGHT = [10, 10, 30, 40]


def test_nothing():
    assert check([]) == check([RIGHT]) == {}


@pytest.mark.parametrize(
    ('box', 'kind'),
    [
        ([10, 10, 10, 40], 'box without area'),
        ([30, 10, 10, 40], 'box of negative size'),
        ([100, 10, 120, 40], 'box outside its image'),
        ([-20, 10, 0, 40], 'box outside its image'),
        ([90, 10, 102, 40], 'box leaves its image'),
        ([10, -2, 30, 40], 'box leaves its image'),
    ],
)
def test_where_a_box_is(box, kind):
    """One kind for a box, with a picture; a pixel beyond the edge is rounding."""
    findings = check([RIGHT, box, [80, 60, 101, 80]])
    text = ', '.join(map(str, box))
    assert findings == {kind: (1, (f'boxes[1]: [{text}] in image 0 of 100x80',))}
    assert findings.pictures == {kind: [(Place('folder/0.png', [box], ['cat']),)]}


def test_ten_boxes_of_which_three_are_named_and_six_drawn():
    findings = check([[10, 10, 10 + k, 10] for k in range(10)])
    assert findings['box without area'].times == 10 and len(findings['box without area'].examples) == 3
    assert len(findings.pictures['box without area']) == 6


# A box of 20 x 20 moved right by 1 has an IoU of 19/21 = 0.905 with it; by 0.5, 19.5/20.5 = 0.951.
ONE, NEAR, SAME = [10, 10, 30, 30], [11, 10, 31, 30], [10.5, 10, 30.5, 30]


@pytest.mark.parametrize(
    ('second', 'label', 'image', 'kind'),
    [
        (ONE, 0, 0, 'repeated box'),
        (SAME, 0, 0, 'repeated box'),
        (NEAR, 0, 0, None),
        (NEAR, 1, 0, 'two classes on one box'),
        ([11.2, 10, 31.2, 30], 1, 0, None),  # 18.8/21.2 = 0.887
        (ONE, 1, 1, None),
    ],
)
def test_two_boxes_of_one_object(second, label, image, kind):
    findings = check([ONE, second], labels=[0, label], images=[0, image])
    text = ', '.join(f'{v:g}' for v in second)
    more = " is 'dog', and boxes[0] is 'cat'" if label else ''
    assert findings == ({kind: (1, (f'boxes[1]: [{text}] in image 0{more}',))} if kind else {})


def test_crowds_and_ignored_boxes_are_on_objects_rightly():
    for flags in (dict(crowd=[0, 1]), dict(ignored=[0, 1])):
        assert set(check([ONE, ONE], **flags)) <= {'ignored box'}


def test_many_boxes_of_an_image(monkeypatch):
    """Compared in blocks: each of 7 boxes is repeated once, whatever lies between."""
    monkeypatch.setattr(checking, 'ROWS', 3)
    boxes = [[10 * k, 0, 10 * k + 8, 8] for k in range(7)]
    findings = check([*boxes, *boxes[::-1]])
    assert findings['repeated box'].times == 7
    assert findings['repeated box'].examples[0] == 'boxes[7]: [60, 0, 68, 8] in image 0'


def test_outliers_of_a_class():
    """Thirty boxes of about 10 x 10; one of 80 x 70, 56 times as large; one of 48 x 3, 16 to 1. Dogs are all thin."""
    rng = np.random.default_rng(0)
    usual = [[x, y, x + 10 + dx, y + 10 + dy] for x, y, dx, dy in rng.uniform(0, 2, (30, 4)) * [30, 25, 1, 1]]
    thin = [[10, 2 * k, 58, 2 * k + 2] for k in range(30)]
    boxes = [*usual, [5, 5, 85, 75], [20, 70, 68, 73], *thin]
    findings = check(boxes, labels=[0] * 32 + [1] * 30)
    assert findings == {
        'box of unusual size': (1, ("boxes[30]: [5, 5, 85, 75] in image 0 of 100x80, 'cat'",)),
        'box of unusual shape': (1, ("boxes[31]: [20, 70, 68, 73] in image 0 of 100x80, 'cat'",)),
    }
    assert check(boxes[15:32]) == {}  # too few to tell what is usual


def test_a_class_of_one_size_and_one_of_all_sizes():
    """Nine times the area is usual; and so is anything in a class whose areas vary by a factor of thousands."""
    grid = [[10 * x, 10 * y, 10 * x + 10, 10 * y + 10] for x in range(5) for y in range(5)]
    assert check([*grid, [60, 40, 89, 69]]) == {}
    assert 'box of unusual size' in check([*grid, [60, 40, 92, 72]])
    wide = [[0, 0, 1.35**k, 1.3**k] for k in range(15)]
    assert 'box of unusual size' not in check([*wide, *[[30, 30, 30 + 1.35**k, 30 + 1.3**k] for k in range(12)]])


def test_units():
    fractions = np.array([[0.1, 0.1, 0.4, 0.5]] * 3) + np.arange(3)[:, None] / 10
    assert check(fractions)['boxes of 0 to 1'] == (1, ('3 of 3',))
    corners = [[x, 30, x + x + 20, 30 + 70] for x in range(40, 52)]
    assert check(corners)['most boxes leave their images'] == (1, ('12 of 12',))
    assert 'most boxes leave their images' not in check(corners[:10])
    assert check([RIGHT], area=[0])['area that is not positive'] == (1, ('boxes[0]',))
    assert check([RIGHT], area=[900])['areas unlike their boxes'] == (1, ('1 of 1',))
    assert check([RIGHT], area=[300]) == {}
