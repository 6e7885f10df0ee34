"""What labelling tools write into COCO's files, and what is done with it."""

import copy

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from frdet.datasets import CocoDataset
from frdet.datasets.coco import read_coco
from frdet.datasets.mending import box_of_mask
from frdet.errors import DataError


def text(value):
    return f'{value:03d}'


@pytest.mark.parametrize('as_id', [str, text, float], ids=['text', 'zeros', 'float'])
@pytest.mark.parametrize('turned', [False, True], ids=['in annotations', 'in their sections'])
def test_ids_of_another_type(write_coco, content, as_id, turned):
    expected = read_coco(write_coco(content) / 'ann.json')
    if turned:
        for item in content['images'] + content['categories']:
            item['id'] = as_id(item['id'])
    else:
        for item in content['annotations']:
            item.update(image_id=as_id(item['image_id']), category_id=as_id(item['category_id']))
    read = read_coco(write_coco(content) / 'ann.json')
    names = [[image['file_name'] for image in one.images] for one in (read, expected)]
    for field in ('image_index', 'category_index'):
        index = getattr(read, field), getattr(expected, field)
        labels = (list(read.categories), list(expected.categories)) if field == 'category_index' else names
        assert [labels[0][k] for k in index[0]] == [labels[1][k] for k in index[1]]


def test_an_id_that_means_two(write_coco, content):
    content['images'][1]['id'] = '07'
    content['annotations'] = [dict(image_id='7', category_id=2, bbox=[1, 2, 3, 4])]
    with pytest.raises(DataError, match=r"annotations\[0\] \(id None\) has image_id '7', which no item of images has"):
        read_coco(write_coco(content) / 'ann.json')


def test_a_crowd_of_null(write_coco, content):
    content['annotations'][2]['iscrowd'] = None
    assert read_coco(write_coco(content) / 'ann.json').crowd.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize('size', [{}, dict(width=0, height=0), dict(width=None, height=None)])
def test_sizes_come_from_the_images(write_coco, content, size):
    """Only for those that need it; an image that a tool names otherwise is found."""
    for item in content['images'][:2]:
        del item['width'], item['height']
        item.update(size)
    content['images'][1]['file_name'] = 'C:\\THREE.JPG'
    root = write_coco(content)
    (root / 'images/nine.jpg').unlink()
    dataset = CocoDataset(data_root=root, ann_file='ann.json', data_prefix=dict(img='images'), lazy_init=True)
    sizes = {image['file_name']: (image['width'], image['height']) for image in dataset.annotations().images}
    assert sizes == {'three.jpg': (40, 60), 'five.jpg': (40, 80), 'seven.jpg': (100, 60), 'nine.jpg': (50, 50)}
    with pytest.raises(DataError, match=r'images\[0\] has (no height|height)'):
        read_coco(root / 'ann.json')
    (root / 'images/seven.jpg').unlink()
    with pytest.raises(DataError, match=r'images\[0\] has (no height|height)'):
        dataset.annotations()


# Pixels of 5 columns and 4 rows: ones in columns 1 to 3 and rows 2 to 3. COCO counts down the columns.
MASK = np.zeros((4, 5), dtype=np.uint8, order='F')
MASK[2:4, 1:4] = 1
MASKS = {
    'polygon': ([[1, 2, 4, 2, 4, 4, 1, 4]], [1, 2, 3, 2]),
    'polygons': ([[1, 2, 2, 2, 2, 3], [3, 3, 4, 4, 3, 4.5]], [1, 2, 3, 2.5]),
    'one list': ([1, 2, 4, 2, 4, 4], [1, 2, 3, 2]),
    'runs': (dict(size=[4, 5], counts=[6, 2, 2, 2, 2, 2, 4]), [1, 2, 3, 2]),
    'compressed': (dict(size=[4, 5], counts=coco_mask.encode(MASK)['counts'].decode()), [1, 2, 3, 2]),
    'a text that does not end': (dict(size=[4, 5], counts='o'), None),
    'no rows': (dict(size=[0, 5], counts='0'), None),
    'half a point': ([[1, 2, 3]], None),
    'words': ('mask', None),
    'no counts': (dict(size=[4, 5]), None),
    'text as numbers': ([['1', 'x']], None),
}


@pytest.mark.parametrize(('mask', 'box'), MASKS.values(), ids=MASKS)
@pytest.mark.parametrize('given', ['absent', None, []])
def test_a_box_that_is_missing_is_that_of_the_mask(write_coco, content, mask, box, given):
    assert box_of_mask(mask) == box
    annotation = content['annotations'][0]
    annotation.update(segmentation=mask, bbox=given)
    if given == 'absent':
        del annotation['bbox']
    path = write_coco(content) / 'ann.json'
    if box is None:
        with pytest.raises(DataError, match=r'annotations\[0\] has (no bbox|bbox)'):
            read_coco(path)
    else:
        assert read_coco(path).xywh[0].tolist() == box


def test_a_box_that_is_there_stays(write_coco, content):
    expected = copy.deepcopy(content['annotations'][0]['bbox'])
    content['annotations'][0]['segmentation'] = [[1, 2, 4, 2, 4, 4]]
    assert read_coco(write_coco(content) / 'ann.json').xywh[0].tolist() == expected


def with_parent(content, name='animals', number=0):
    for item in content['categories']:
        item['supercategory'] = name
    content['categories'].insert(0, dict(id=number, name=name, supercategory='none'))
    return content


@pytest.mark.parametrize('name', ['animals', 'cat'])
def test_roboflows_parent_is_no_class(write_coco, content, name):
    """Also if it is called like one of its children."""
    root = write_coco(with_parent(content, name))
    dataset = CocoDataset(data_root=root, ann_file='ann.json', data_prefix=dict(img='images'))
    assert dataset.metainfo['classes'] == ('person', 'car', 'cat')
    assert dataset.notes == [
        f'{root}/ann.json: The category {name!r} with id 0 is left out: it is the parent of all others and has no box'
    ]


def test_a_first_category_that_is_a_class(write_coco, content):
    """Because it has a box, another id, or is not the parent of all."""
    used = with_parent(copy.deepcopy(content))
    used['annotations'][0]['category_id'] = 0
    other = with_parent(copy.deepcopy(content))
    other['categories'][1]['supercategory'] = 'things'
    for one in (used, other, with_parent(copy.deepcopy(content), number=1)):
        assert 'animals' in read_coco(write_coco(one) / 'ann.json').categories


def test_images_under_other_names_are_trained_on(write_coco, content):
    for item in content['images']:
        item['file_name'] = f'http://localhost:8080/data/upload/1/{item["file_name"].upper()}'
    root = write_coco(content)
    Image.new('RGB', (50, 50)).save(root / 'images/other.png')
    dataset = CocoDataset(
        data_root=root, ann_file='ann.json', data_prefix=dict(img='images'), pipeline=[dict(type='LoadImage')]
    )
    assert [dataset[k]['img'].shape[:2] for k in range(4)] == [(60, 40), (80, 40), (60, 100), (50, 50)]
    (note,) = dataset.notes
    assert '4 of 4 file names are written otherwise' in note
