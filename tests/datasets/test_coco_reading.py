import gzip
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frdet.datasets import CocoDataset
from frdet.datasets.checking import ERRORS, Findings
from frdet.datasets.checking.annotations import check_annotations
from frdet.datasets.checking.images import find_images
from frdet.datasets.coco import read_coco
from frdet.errors import DataError


def check_file(path, findings):
    return check_annotations(CocoDataset(ann_file=path, data_prefix=dict(img=''), lazy_init=True), findings)


def test_arrays_by_hand(write_coco, content):
    read = read_coco(write_coco(content) / 'ann.json')
    assert [image['id'] for image in read.images] == [3, 5, 7, 9]
    assert list(read.categories.items()) == [('person', 2), ('car', 11), ('cat', 40)]
    np.testing.assert_array_equal(read.image_index, [2, 1, 2, 0, 2])
    np.testing.assert_array_equal(read.category_index, [2, 0, 1, 0, 0])
    np.testing.assert_array_equal(read.xywh[0], content['annotations'][0]['bbox'])
    np.testing.assert_array_equal(read.crowd, [False, False, True, True, False])
    # xywh to xyxy; the first ends at 60.5, half a pixel under its image of 60 rows, the last begins left of the image.
    expected = [[10, 20, 40, 60], [0.5, 1.5, 10.5, 21.5], [5, 5, 15, 15], [0, 0, 10, 10], [0, 0, 15, 10]]
    np.testing.assert_array_equal(read.boxes, np.array(expected, dtype=np.float32))
    assert read.boxes.dtype == np.float32


def test_no_annotation_at_all(write_coco, content):
    read = read_coco(write_coco({**content, 'annotations': []}) / 'ann.json')
    assert read.boxes.shape == (0, 4)
    assert len(read_coco(write_coco({**content, 'annotations': [], 'images': []}) / 'ann.json').images) == 0


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('not json', 'is not JSON (Expecting value'),
        ('{"images": [', 'is not JSON'),
        ('[1, 2]', 'holds a JSON list'),
        ('true', 'holds a JSON bool'),
        ('5', 'holds a JSON int'),
        ('{"data_list": [], "images": []}', 'has no annotations and no categories (found data_list, images)'),
        ('{"images": {}, "annotations": [], "categories": []}', 'images is a dict'),
        ('{"images": [], "annotations": [], "categories": []}', 'has no category'),
    ],
)
def test_a_file_that_is_no_coco_file(write_coco, text, expected):
    path = write_coco(text) / 'ann.json'
    with pytest.raises(DataError) as error:
        read_coco(path)
    assert str(error.value).startswith(str(path))
    assert expected in str(error.value)
    assert '\n' not in str(error.value)


def test_a_binary_file(write_coco, content):
    path = write_coco(content) / 'images' / 'five.jpg'
    with pytest.raises(DataError, match='is not JSON'):
        read_coco(path)


@pytest.mark.parametrize(
    ('section', 'index', 'change', 'expected'),
    [
        ('images', 1, {'height': '480'}, "images[1] has height '480': expected a positive number of pixels"),
        ('images', 1, {'width': 0}, 'images[1] has width 0'),
        ('images', 0, {'file_name': None}, 'images[0] has file_name None: expected a text'),
        ('images', 2, {'id': 3}, 'images[2] repeats the id 3'),
        ('images', 2, {'id': 9.5}, 'images[2] has id 9.5: expected an integer or a text'),
        ('images', 2, {'id': True}, 'images[2] has id True: expected an integer or a text'),
        ('images', 1, {'height': 480.5}, 'images[1] has height 480.5: expected a positive number of pixels'),
        ('annotations', 2, {'image_id': '8'}, "annotations[2] (id 3) has image_id '8', which no item of images has"),
        ('annotations', 3, {'ignore': 'yes'}, "annotations[3] has ignore 'yes': expected 0 or 1"),
        ('annotations', 3, {'area': '50'}, "annotations[3] has area '50': expected a finite number of square pixels"),
        ('annotations', 3, {'area': float('inf')}, 'annotations[3] has area inf'),
        ('categories', 1, {'name': 'cat'}, "categories[1] repeats the name 'cat' or the id 2"),
        ('categories', 2, {'id': 2}, "categories[2] repeats the name 'car' or the id 2"),
        ('annotations', 2, {'image_id': 8}, 'annotations[2] (id 3) has image_id 8, which no item of images has'),
        ('annotations', 2, {'category_id': 1}, 'annotations[2] (id 3) has category_id 1, which no item of categories'),
        ('annotations', 3, {'bbox': [1, 2, 3]}, 'annotations[3] has bbox [1, 2, 3]: expected four finite numbers'),
        ('annotations', 3, {'bbox': [1, 2, 3, '4']}, "annotations[3] has bbox [1, 2, 3, '4']"),
        ('annotations', 3, {'bbox': [1, 2, 3, float('nan')]}, 'annotations[3] has bbox [1, 2, 3, nan]'),
        ('annotations', 3, {'bbox': None}, 'annotations[3] has bbox None'),
        ('annotations', 3, {'iscrowd': 'no'}, "annotations[3] has iscrowd 'no': expected 0 or 1"),
        ('annotations', 3, {'iscrowd': 2}, 'annotations[3] has iscrowd 2: expected 0 or 1'),
    ],
)
def test_a_wrong_item_is_named(write_coco, content, section, index, change, expected):
    content[section][index].update(change)
    with pytest.raises(DataError) as error:
        read_coco(write_coco(content) / 'ann.json')
    assert expected in str(error.value)


def test_a_missing_field_and_an_item_that_is_no_object(write_coco, content):
    del content['annotations'][4]['bbox']
    with pytest.raises(DataError, match=r'annotations\[4\] has no bbox: it needs image_id, category_id, bbox'):
        read_coco(write_coco(content) / 'ann.json')
    content['annotations'][4] = 12
    with pytest.raises(DataError, match=r'annotations\[4\] is 12: expected an object'):
        read_coco(write_coco(content) / 'ann.json')


def test_masks_are_not_kept(write_coco, content):
    content['annotations'][0]['segmentation'] = [[1, 2, 3, 4]]
    assert len(read_coco(write_coco(content) / 'ann.json').boxes) == 5


numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([2**63, -(2**63), 10**400, 10**18]))
texts = st.one_of(st.text(max_size=3), st.sampled_from(['../../a', '/etc/passwd', 'a\0b', '.', '\ud800', '\x1b[2J']))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
anything: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
names = st.sampled_from(
    ['images', 'annotations', 'categories', 'id', 'image_id', 'category_id', 'bbox', 'iscrowd', 'file_name', 'width']
)
layouts = st.recursive(anything, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5))


def one_of_everything() -> dict[str, Any]:
    return {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 5, 'width': 5}],
        'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 1, 1], 'iscrowd': 0}],
        'categories': [{'id': 1, 'name': 'a'}],
    }


@st.composite
def nearly_right(draw):
    """A right file of which one to three values are replaced, or keys dropped."""
    content = one_of_everything()
    for _ in range(draw(st.integers(1, 3))):
        section = draw(st.sampled_from(list(content)))
        item = content[section][0]
        if not isinstance(item, dict) or draw(st.integers(0, 9)) == 0:
            content[section][draw(st.integers(0, 0))] = draw(anything)
        elif draw(st.booleans()):
            item[draw(st.sampled_from(sorted(item) or ['id']))] = draw(anything)
        else:
            item['bbox'] = draw(st.lists(numbers, min_size=4, max_size=4))
    return content


@given(content=st.one_of(layouts, nearly_right()))
def test_any_file_is_read_or_refused_in_words(tmp_path, content):
    """By the reader and by the data set on it; and what they refuse, the check reports."""
    path = tmp_path / 'any.json'
    path.write_text(json.dumps(content))
    findings = Findings()
    find_images(check_file(path, findings).images, tmp_path, findings)
    try:
        read = read_coco(path)
    except DataError as error:
        assert str(error).startswith(str(path))
        assert {kind for kind in findings if kind in ERRORS and kind != 'missing image'}
        return
    assert len(read.boxes) == len(read.image_index) == len(content['annotations'])
    assert np.isfinite(read.boxes).all()
    pipeline = [dict(type='LoadImage')]
    try:
        dataset = CocoDataset(data_root=tmp_path, ann_file='any.json', data_prefix=dict(img=''), pipeline=pipeline)
        dataset[0]
    except DataError as error:
        assert 'lists no image' in str(error) or 'is not on disk' in str(error) or 'cannot be decoded' in str(error)


@pytest.mark.parametrize(
    'text',
    [
        '[' * 100_000,
        '{"images": ' + '[' * 900 + ']' * 900 + ', "annotations": [], "categories": []}',
        json.dumps(one_of_everything()).replace('[0, 0, 1, 1]', '[' * 900 + ']' * 900),
        json.dumps(one_of_everything()).replace('"image_id": 1', '"image_id": ' + '{"a":' * 900 + '1' + '}' * 900),
        json.dumps(one_of_everything()).replace('"width": 5', '"width": 1' + '0' * 5000),
        json.dumps(one_of_everything()).replace('"width": 5', '"width": Infinity'),
    ],
)
def test_hostile_files(tmp_path, text):
    (tmp_path / 'a.json').write_text(text)
    findings = Findings()
    with pytest.raises(DataError):
        read_coco(tmp_path / 'a.json')
    check_file(tmp_path / 'a.json', findings)
    assert findings.has_errors


@pytest.mark.parametrize(
    'as_id',
    [
        lambda i: i - 100,
        lambda i: i * 10**18,
        lambda i: i + 10**30,
        float,
        lambda i: f'{i:012d}',
        lambda i: f'9f2c-{i:02d}',
    ],
    ids=['negative', 'beyond double', 'beyond 64 bits', 'float', 'digits', 'text'],
)
def test_ids_of_any_kind_give_the_same_arrays(write_coco, content, as_id):
    expected = read_coco(write_coco(content) / 'ann.json')
    for image in content['images']:
        image['id'] = as_id(image['id'])
    for category in content['categories']:
        category['id'] = as_id(category['id'])
    for place, annotation in enumerate(content['annotations']):
        annotation.update(image_id=as_id(annotation['image_id']), category_id=as_id(annotation['category_id']))
        annotation['id'] = (0, 0, None, 'x', -1)[place]
    read = read_coco(write_coco(content) / 'ann.json')
    for field in ('boxes', 'image_index', 'category_index', 'crowd', 'ignored', 'area'):
        np.testing.assert_array_equal(getattr(read, field), getattr(expected, field))
    assert [image['file_name'] for image in read.images] == [image['file_name'] for image in expected.images]
    assert list(read.categories) == list(expected.categories)
    assert all(type(image['id']) in (int, str) for image in read.images)  # 1.0 is written as 1


@pytest.mark.parametrize(
    ('area', 'expected', 'replaced'),
    [
        (7.5, 7.5, 0),
        (0, 600, 1),
        (-3, 600, 1),
        (0.0, 600, 1),
        (None, 600, 0),
        (float('nan'), 600, 0),
        ('absent', 600, 0),
    ],
)
def test_an_area_that_is_not_positive_is_the_box(write_coco, content, area, expected, replaced):
    """The box is 30 x 20."""
    content['annotations'] = [{'image_id': 7, 'category_id': 2, 'bbox': [1, 2, 30, 20], 'area': area}]
    if area == 'absent':
        del content['annotations'][0]['area']
    read = read_coco(write_coco(content) / 'ann.json')
    assert (read.area.tolist(), read.areas_replaced) == ([expected], replaced)


def test_a_box_of_negative_size_has_no_area(write_coco, content):
    content['annotations'] = [{'image_id': 7, 'category_id': 2, 'bbox': [10, 10, -3, -4]}]
    assert read_coco(write_coco(content) / 'ann.json').area.tolist() == [0]


def test_whole_sizes_written_as_floats(write_coco, content):
    content['images'][0]['width'] = 100.0
    image = read_coco(write_coco(content) / 'ann.json').images[2]
    assert (image['id'], image['width']) == (7, 100) and type(image['width']) is int


ENCODED = {
    'utf-8': str.encode,
    'byte order mark': lambda text: text.encode('utf-8-sig'),
    'utf-16': lambda text: text.encode('utf-16'),
    'utf-16 without mark': lambda text: text.encode('utf-16-le'),
    'utf-32': lambda text: text.encode('utf-32'),
    'gzip': lambda text: gzip.compress(text.encode()),
    'gzip of a byte order mark': lambda text: gzip.compress(text.encode('utf-8-sig')),
}


@pytest.mark.parametrize('encode', ENCODED.values(), ids=ENCODED)
def test_encodings(tmp_path, content, encode):
    content['categories'][0]['name'] = 'Überwürfe 图'
    (tmp_path / 'ann.json').write_bytes(encode(json.dumps(content, ensure_ascii=False)))
    assert list(read_coco(tmp_path / 'ann.json').categories) == ['person', 'car', 'Überwürfe 图']


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        ('{"info": "Müller"}'.encode('latin-1'), 'is not JSON in UTF-8 (byte 0xfc at 11): save it as UTF-8'),
        (b'PK\x03\x04more', 'is a ZIP archive: unpack it'),
        (b'BZh91AY', 'is compressed by bzip2: unpack it'),
        (gzip.compress(b'{}' * 500, mtime=0)[:-12], 'is compressed by gzip and broken'),
        (b'', 'is empty'),
        (b' \n', 'is empty'),
        (b'{"id": 1}\n{"id": 2}', 'it holds several values, one after another'),
    ],
)
def test_files_that_are_called_what_they_are(tmp_path, data, words):
    (tmp_path / 'ann.json').write_bytes(data)
    with pytest.raises(DataError) as error:
        read_coco(tmp_path / 'ann.json')
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path / 'ann.json'))


@pytest.mark.parametrize(
    ('section', 'change'),
    [
        ('images', {'width': 10**400}),
        ('annotations', {'bbox': [0, 0, 1, 10**400]}),
        ('annotations', {'bbox': [0.5, 0, 1, 10**400]}),
        ('annotations', {'category_id': 10**30}),
        ('annotations', {'area': 10**400}),
    ],
)
def test_numbers_beyond_64_bits(write_coco, content, section, change):
    content[section][0].update(change)
    with pytest.raises(DataError, match=rf'{section}\[0\]'):
        read_coco(write_coco(content) / 'ann.json')
