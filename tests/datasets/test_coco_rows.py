"""Annotations as COCO writes them take little memory, and all others are read as they are written."""

import json
import math
import tracemalloc

import numpy as np
import pytest

from frdet.datasets.coco_file import load_sections
from frdet.datasets.coco_rows import CocoRows

ITEM = dict(id=7, image_id=3, category_id=-2, bbox=[1, 2.5, 30, 4], area=12.25, iscrowd=1, ignore=0)


def test_an_item_comes_back_as_it_was():
    rows = CocoRows()
    assert rows.add(ITEM)
    assert rows.add({key: ITEM[key] for key in ('id', 'image_id', 'category_id')} | {'bbox': (0, 0, math.nan, 1e300)})
    assert repr(rows[0]) == repr(ITEM) and repr(rows[-2:][0]) == repr(ITEM)
    assert (rows[1]['bbox'][:2], rows[1]['iscrowd'], rows[1]['ignore']) == ([0, 0], 0, 0)
    assert math.isnan(rows[1]['bbox'][2]) and math.isnan(rows[1]['area'])
    assert [item['id'] for item in rows] == [7, 7] == rows.table['id'].tolist()
    assert np.array_equal(rows.table['bbox'][0], [1, 2.5, 30, 4])
    with pytest.raises(IndexError):
        rows[2]


@pytest.mark.parametrize(
    'change',
    [
        dict(id='7'), dict(id=None), dict(id=2**70), dict(image_id=3.0), dict(category_id=True), dict(area='12'),
        dict(iscrowd=None), dict(iscrowd=True), dict(iscrowd=0.5), dict(ignore='no'), dict(bbox=None),
        dict(bbox=[1, 2, 3]), dict(bbox=[1, 2, 3, 4, 5]), dict(bbox=[1, 2, 3, '4']), dict(bbox=[1, 2, 3, True]),
        dict(bbox=[1, 2, 3, 10**400]),
    ],
)  # fmt: skip
def test_an_item_of_other_types_is_not_taken(change):
    rows = CocoRows()
    assert not rows.add(ITEM | change)
    assert len(rows) == 0


@pytest.fixture
def load(tmp_path):
    def load(annotations, **more):
        content = {'images': [{'id': 3, 'file_name': 'a.jpg'}], 'annotations': annotations, 'categories': [], **more}
        (tmp_path / 'a.json').write_text(json.dumps(content))
        return load_sections(tmp_path / 'a.json')['annotations']

    return load


def test_one_other_item_leaves_all_as_they_are(load):
    items = [ITEM | {'area': 3.0}, ITEM | {'id': 'b'}]
    assert repr(load(items)) == repr(items)


def test_an_annotation_elsewhere_is_not_counted(load):
    items = [ITEM, ITEM | {'id': 8}]
    assert load(items, info={'example': ITEM}) == items


def test_an_annotation_needs_a_tenth_of_a_kilobyte(load):
    """66 bytes, and at most an eighth more to grow; as a dict with its numbers it would need more than 500."""
    items = [
        ITEM | {'id': k, 'area': k + 0.5, 'bbox': [k + 0.5] * 4, 'segmentation': [[1, 2, 3, 4, 5, 6]]}
        for k in range(2000)
    ]
    tracemalloc.start()
    try:
        rows = load(items)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(rows) == 2000
    assert used / 2000 < 100
