"""What a reader gives is completed as its documentation says, or refused in words."""

import numpy as np
import pytest
from PIL import Image

from frdet.datasets import Annotations, image_size

IMAGES = [dict(file_name='a.png', height=60, width=100), dict(file_name='b.png', height=50, width=40, id=7)]


def given(**changes):
    """Two boxes in the first image, the second of which leaves it, and one in the other."""
    arguments = dict(
        images=IMAGES,
        categories=['cat', 'dog'],
        boxes=[[10, 20, 30, 45.5], [-5, 0, 120, 10], [1, 2, 3, 4]],
        image_index=[0, 0, 1],
        category_index=[1, 0, 1],
    )
    return Annotations(**{**arguments, **changes})


def test_completed_by_hand():
    read = given(area=[7, -1, float('nan')], crowd=[0, 1, 0])
    assert [(image['id'], image['height'], image['width']) for image in read.images] == [
        ('a.png', 60, 100),
        (7, 50, 40),
    ]
    assert read.categories == {'cat': 1, 'dog': 2}
    np.testing.assert_array_equal(read.boxes, np.float32([[10, 20, 30, 45.5], [0, 0, 100, 10], [1, 2, 3, 4]]))
    np.testing.assert_array_equal(read.xywh, [[10, 20, 20, 25.5], [-5, 0, 125, 10], [1, 2, 2, 2]])
    np.testing.assert_array_equal(read.area, [7, 1250, 4])
    assert read.areas_replaced == 1
    assert (read.crowd.tolist(), read.ignored.tolist()) == ([False, True, False], [False] * 3)
    assert (read.boxes.dtype, read.xywh.dtype, read.crowd.dtype) == (np.float32, np.float64, bool)
    assert read.labels({'dog': 0, 'cow': 1}).tolist() == [0, -1, 0]


def test_boxes_with_width_and_height():
    read = given(boxes=None, xywh=[[10, 20, 20, 25.5], [-5, 0, 125, 10], [1, 2, 2, 2]])
    np.testing.assert_array_equal(read.boxes, given().boxes)
    np.testing.assert_array_equal(read.xywh, given().xywh)


def test_no_box():
    read = given(boxes=[], image_index=[], category_index=[])
    assert read.boxes.shape == read.xywh.shape == (0, 4) and read.area.shape == (0,)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(boxes=[[1, 2, 3, 4, 5]] * 3), r'boxes is an array \(3, 5\) of int64: expected numbers, \(3, 4\)'),
        (dict(boxes=[['1', '2', '3', '4']] * 3), r'boxes is an array \(3, 4\) of <U1'),
        (
            dict(boxes=[[1, 2, 3, 4], [1, 2, np.nan, 4], [1, 2, 3, 4]]),
            r'boxes\[1\] is \[1.0, 2.0, nan, 4.0\]: expected f',
        ),
        (dict(boxes=[[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 1e300]]), r'boxes\[2\] is'),
        (dict(image_index=[0, 0]), r'image_index is an array \(2,\) of int64: expected numbers, \(3,\)'),
        (dict(image_index=[0, 0, 2]), r'image_index\[2\] is 2: expected a position from 0 to 1'),
        (dict(category_index=[0, -1, 0]), r'category_index\[1\] is -1: expected a position from 0 to 1'),
        (dict(category_index=[0, 0.5, 0]), r'category_index\[1\] is 0.5'),
        (dict(category_index=['cat', 'dog', 'dog']), 'category_index is an array'),
        (dict(crowd=[0, 1]), r'crowd is an array \(2,\)'),
        (dict(ignored=[0, 2, 0]), r'ignored\[1\] is 2: expected 0 or 1'),
        (dict(area=[1, 2, np.inf]), r'area\[2\] is inf'),
        (dict(categories=['cat', 'cat']), 'categories names a class twice'),
        (dict(categories=[]), 'expected at least one class'),
        (dict(categories={'cat': 1, 'dog': 1}), 'and an id for each'),
        (dict(categories={'cat': 1, 'dog': None}), 'a category has id None: expected an integer or a text'),
        (dict(images=[IMAGES[0], IMAGES[0]]), r"images\[1\] repeats the id 'a.png' of images\[0\]"),
        (dict(images=[IMAGES[0], 'b.png']), r"images\[1\] is 'b.png': expected an object with id, file_name"),
        (dict(images=[IMAGES[0], dict(file_name='b.png', width=3)]), r'images\[1\] has no height'),
        (dict(images=[IMAGES[0], dict(IMAGES[1], height=0)]), r'images\[1\] has height 0: expected a positive number'),
    ],
)
def test_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        given(**change)


def test_the_size_of_an_image(tmp_path):
    Image.new('RGB', (8, 6)).save(tmp_path / 'a.png')
    assert image_size(tmp_path / 'a.png') == (6, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new('RGB', (8, 6)).save(tmp_path / 'turned.jpg', exif=exif)
    assert image_size(tmp_path / 'turned.jpg') == (8, 6)
    with pytest.raises(ValueError, match=r'none.png is not known, because it cannot be read'):
        image_size(tmp_path / 'none.png')


def test_names_are_ids_or_numbers_in_the_image():
    rows = dict(image_index=[1, 0, 1])
    assert given(**rows).names() == ['1', '1', '2']
    with_ids = given(**rows, ids=[30, 'b', 10])
    assert with_ids.names() == ['30', 'b', '10']
    assert with_ids.subset(np.array([1])).names() == ['30', '10']
    with pytest.raises(ValueError, match=r'ids is an array \(2,\): expected \(3,\)'):
        given(ids=[1, 2])
