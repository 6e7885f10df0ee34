"""Reading detections from a results JSON: which image and class each is of, and what is refused."""

import json

import numpy as np
import pytest

from frdet.datasets import Annotations
from frdet.datasets.masks import as_coco
from frdet.errors import DataError
from frdet.evaluation.results import read_results
from frdet.evaluation.truth import Source, Truth


def source(name, files, ids, categories):
    images = [dict(id=i, file_name=file, height=50, width=60) for i, file in zip(ids, files, strict=True)]
    content = Annotations(
        images=images, categories=categories, image_index=[0], category_index=[0], xywh=np.array([[1.0, 2, 3, 4]])
    )
    return Source(name, content, f'/data/{name}')


ONE = Truth([source('one', ['a/1.jpg', 'b/1.jpg', '2.jpg'], [7, 'x', 9], {'cat': 3, 'dog': 5})])
#: Two data sets with the same file names, the same ids of images, and swapped ids of classes.
TWO = Truth([
    source('one', ['1.jpg', '2.jpg'], [1, 2], {'cat': 3, 'dog': 5}),
    source('two', ['1.jpg', '4.jpg'], [8, 2], {'cat': 5, 'dog': 3}),
])  # fmt: skip


def record(**changes):
    return {'image_id': 7, 'category_id': 3, 'bbox': [1.5, 2, 3, 4], 'score': 0.5, **changes}


def read(tmp_path, records, truth=ONE, classes=('cat', 'dog'), positions=None, **kwargs):
    path = tmp_path / 'results.json'
    path.write_text(records if isinstance(records, str) else json.dumps(records))
    positions = range(len(truth.images)) if positions is None else positions
    return read_results(path, truth, classes, positions, **kwargs)


def where(found):
    """(position, label) of every detection."""
    return [(position, label) for position, one in enumerate(found) for label in one.labels.tolist()]


def test_boxes_and_scores_as_in_the_file(tmp_path):
    found, said = read(tmp_path, [record(), record(bbox=[0.1, 0.2, 0.7, 0.3], score=1, category_id=5)])
    assert said == ''
    assert [(one.img_id, one.img_path) for one in found] == [
        (7, '/data/one/a/1.jpg'),
        ('x', '/data/one/b/1.jpg'),
        (9, '/data/one/2.jpg'),
    ]
    assert found[0].xywh.tolist() == [[1.5, 2, 3, 4], [0.1, 0.2, 0.7, 0.3]]  # to the last bit
    assert found[0].scores.tolist() == [0.5, 1] and found[0].labels.tolist() == [0, 1]
    assert found[1].xywh.shape == (0, 4)


@pytest.mark.parametrize(
    ('truth', 'changes', 'expected'),
    [
        (ONE, dict(image_id='x'), (1, 0)),
        (ONE, dict(image_id=7.0), (0, 0)),
        (ONE, dict(image_id=1, file_name='2.jpg'), (2, 0)),  # detect.py counts images from 1
        (ONE, dict(image_id=1, file_name='/other/place/b/1.jpg'), (1, 0)),
        (ONE, dict(image_id=1, file_name='C:\\place\\a\\1.jpg'), (0, 0)),
        (ONE, dict(image_id='x', file_name='1.jpg'), (1, 0)),  # of the two files of this name
        (ONE, dict(category_id=99, category_name='dog'), (0, 1)),
        (TWO, dict(image_id=8, category_id=5), (2, 0)),
        (TWO, dict(image_id=1, category_id=5), (0, 1)),
        (TWO, dict(image_id=2, file_name='4.jpg', category_id=3), (3, 1)),
        (TWO, dict(image_id=8, file_name='1.jpg', category_id=3), (2, 1)),
    ],
)
def test_image_and_class(tmp_path, truth, changes, expected):
    assert where(read(tmp_path, [record(**changes)], truth)[0]) == [expected]


def test_what_is_not_tested_is_left_out(tmp_path):
    records = [record(), record(category_id=5), record(image_id=9), record(image_id=9)]
    found, said = read(tmp_path, records, classes=('cat',), positions=[0, 1])
    assert where(found) == [(0, 0)]
    assert said.endswith('results.json: 1 of classes that are not tested, 2 in images that are not tested (detections)')


@pytest.mark.parametrize(
    ('records', 'message'),
    [
        ([record(image_id=k) for k in (1, 1, 2, 3, 4)], r'5 detections are of 4 images .* in one \(1, 2, 3, ...\)'),
        ([record(image_id='7')], r"1 detections are of 1 images .*\('7'\)"),
        ([record(file_name='1.jpg', image_id=1)], 'images that are not in one'),  # two files have this name
        ([record(file_name='c/1.jpg')], "'c/1.jpg'"),
        ([record(), record(category_id=4)], r'1 detections are of 1 categories that are not in one \(4\)'),
        ([record(category_name='bird')], "'bird'"),
        ('[1, 2', 'is not JSON'),
        ('{"images": [], "annotations": []}', 'is no list, it is a JSON dict of images, annotations'),
        ([record(), 'x'], "item 1 is 'x': expected an object"),
        ([{'image_id': 1, 'category_id': 1, 'segmentation': {}, 'score': 1}], 'item 0 has no bbox'),
        ([{'image_id': 1, 'category_id': 1, 'segmentation': [[1, 2, 3, 4]], 'score': 1}], 'item 0.* of 2 points'),
        ([{'image_id': 1, 'bbox': [1, 2, 3, 4], 'score': 1}], 'item 0 has no category_id'),
        ([record(bbox=[1, 2, 3])], r'has bbox \[1, 2, 3\]: expected four finite numbers'),
        ([record(bbox=[1, 2, 3, float('nan')])], 'expected four finite numbers'),
        ([record(score=float('nan'))], 'has score nan: expected a finite number'),
        ([record(score='0.5')], 'expected a finite number'),
        ([record(score=None)], 'expected a finite number'),
        ([record(file_name='a.mp4', frame=3)], 'item 0 is in a frame of the video a.mp4'),
    ],
)
def test_what_is_refused(tmp_path, records, message):
    with pytest.raises(DataError, match=message) as info:
        read(tmp_path, records)
    assert str(info.value).startswith(str(tmp_path))
    assert len(str(info.value).splitlines()) == 1


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match='none.json cannot be read: No such file'):
        read_results(tmp_path / 'none.json', ONE, ('cat',), [0])


def test_an_empty_list_is_no_error(tmp_path):
    assert where(read(tmp_path, [])[0]) == []


def masked(mask, **changes):
    return {**record(**changes), 'segmentation': mask}


def test_masks_and_boxes_of_masks(tmp_path):
    """Images have 50 x 60 pixels. A box that is not there is that of the mask."""
    polygon, rle = [[1, 2, 9, 2, 9, 7.5]], {'size': [50, 60], 'counts': [100, 2, 2898]}
    records = [masked(polygon), masked(rle, image_id=9), masked(polygon, category_id=5)]
    del records[2]['bbox']
    found, _ = read(tmp_path, records, with_masks=True)
    assert [[as_coco(mask) for mask in one.masks] for one in found] == [
        [polygon, polygon], [], [{'size': [50, 60], 'counts': 'T32bj2'}]
    ]  # fmt: skip
    assert found[0].xywh.tolist() == [[1.5, 2, 3, 4], [1, 2, 8, 5.5]]
    assert all(one.masks is None for one in read(tmp_path, records)[0])


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (None, 'item 1 has no mask: for metric segm, every detection needs .* --metric bbox'),
        ([[1, 2, 3, 4]], r'item 1\.segmentation has a polygon of 2 points'),
        ({'size': [60, 50], 'counts': [3000]}, r'item 1\.segmentation is an RLE of \[60, 50\]: expected .* \[50, 60\]'),
    ],
)
def test_wrong_masks(tmp_path, mask, message):
    records = [masked([[1, 2, 9, 2, 9, 7.5]]), masked(mask)]
    with pytest.raises(DataError, match=message):
        read(tmp_path, records, with_masks=True)
    assert len(read(tmp_path, records)[0][0].labels) == 2  # masks do not matter to boxes
