import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from frdet.datasets import CocoDataset
from frdet.datasets.coco import read_coco
from frdet.errors import ConfigError, DataError
from frdet.registry import DATASETS

TRAIN = dict(filter_empty_gt=True)


def dataset_of(root, **kwargs):
    return CocoDataset(data_root=root, ann_file='ann.json', data_prefix=dict(img='images'), **kwargs)


def test_records_by_hand(write_coco, content):
    dataset = dataset_of(write_coco(content))
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [3, 5, 7, 9]
    assert dataset.metainfo['classes'] == ('person', 'car', 'cat')
    assert dataset.cat_ids == [2, 11, 40]
    record = dataset.get_data_info(2)
    np.testing.assert_array_equal(record['gt_bboxes'], [[10, 20, 40, 60], [5, 5, 15, 15], [0, 0, 15, 10]])
    np.testing.assert_array_equal(record['gt_labels'], [2, 1, 0])
    np.testing.assert_array_equal(record['gt_crowd'], [False, True, False])
    assert (record['height'], record['width']) == (60, 100)
    assert record['img_path'] == str(write_coco(content) / 'images' / 'seven.jpg')
    assert record['gt_bboxes'].dtype == np.float32
    assert record['gt_labels'].dtype == np.int64
    assert dataset.get_data_info(3)['gt_bboxes'].shape == (0, 4)
    assert dataset.get_cat_ids(2) == [0, 1, 2]


def test_same_as_pycocotools(coco_root):
    """Images with a box that is no crowd, their boxes and classes, read by the accepted implementation."""
    dataset = CocoDataset(
        data_root=coco_root.root,
        ann_file=coco_root.train_ann,
        data_prefix=dict(img=coco_root.train_prefix),
        filter_cfg=TRAIN,
    )
    reference = COCO(coco_root.root / coco_root.train_ann)
    assert dataset.cat_ids == sorted(reference.getCatIds())
    names = {c['id']: c['name'] for c in reference.loadCats(reference.getCatIds())}
    assert dataset.metainfo['classes'] == tuple(names[i] for i in dataset.cat_ids) == coco_root.classes
    kept = [i for i in sorted(reference.getImgIds()) if reference.getAnnIds(imgIds=i, iscrowd=False)]
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == kept
    for index, image_id in enumerate(kept):
        record, truth = dataset.get_data_info(index), reference.loadAnns(reference.getAnnIds(imgIds=image_id))
        expected = np.array([a['bbox'] for a in truth], dtype=np.float64)
        expected[:, 2:] += expected[:, :2]
        # Some boxes of COCO end up to a hundredth of a pixel outside their image, where they are cut.
        np.testing.assert_allclose(record['gt_bboxes'], expected, atol=0.02)
        assert [dataset.cat_ids[label] for label in record['gt_labels']] == [a['category_id'] for a in truth]
        assert record['gt_crowd'].tolist() == [bool(a['iscrowd']) for a in truth]


@pytest.mark.parametrize(
    ('ids', 'names'),
    [
        ([40, 20, 30], ['40', '20', '30']),
        (['a', 20, 'b'], ['a', '20', 'b']),
        ([40, 20, 40], ['1', '2', '3']),  # two of one id
        ([40, None, 30], ['1', '2', '3']),
        ([40, [1], 30], ['1', '2', '3']),
    ],
)
def test_ids_of_annotations_are_kept_if_they_tell_them_apart(write_coco, content, ids, names):
    box = {**content['annotations'][0], 'image_id': content['images'][0]['id']}
    content['annotations'] = [{**box, 'id': one} for one in ids]
    assert read_coco(write_coco(content) / 'ann.json').names() == names


def test_training_leaves_out_images_without_a_box(write_coco, content):
    dataset = dataset_of(write_coco(content), filter_cfg=TRAIN)
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [5, 7]


def test_testing_keeps_every_image(write_coco, content):
    assert len(dataset_of(write_coco(content), filter_cfg=TRAIN, test_mode=True)) == 4


def test_a_file_without_annotations_is_for_testing(write_coco, content):
    """As image_info_test-dev2017.json, which lists the images of a challenge."""
    del content['annotations']
    dataset = dataset_of(write_coco(content), test_mode=True)
    assert [dataset.get_data_info(k)['gt_bboxes'].shape for k in range(4)] == [(0, 4)] * 4
    assert dataset.metainfo['classes'] == ('person', 'car', 'cat')
    with pytest.raises(DataError, match=r'ann.json has no annotations, .* can be tested .* but not trained on'):
        dataset_of(write_coco(content))
    del content['categories']
    with pytest.raises(DataError, match='has no annotations and no categories'):
        dataset_of(write_coco(content), test_mode=True)


def test_small_images_are_left_out(write_coco, content):
    dataset = dataset_of(write_coco(content), filter_cfg=dict(min_size=50))
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [7, 9]


def test_chosen_classes_in_their_order(write_coco, content):
    dataset = dataset_of(write_coco(content), metainfo=dict(classes=['cat', 'car']), filter_cfg=TRAIN)
    assert dataset.metainfo['classes'] == ('cat', 'car')
    assert dataset.cat_ids == [40, 11]
    assert len(dataset) == 1
    record = dataset.get_data_info(0)
    assert record['img_id'] == 7
    np.testing.assert_array_equal(record['gt_labels'], [0, 1])
    np.testing.assert_array_equal(record['gt_crowd'], [False, True])


def test_unused_labels(write_coco, content):
    """Labels are category ids less 1, of which 2, 11 and 40 exist."""
    classes = ['N/A'] * 40
    classes[1], classes[10], classes[39] = 'person', 'car', 'cat'
    dataset = dataset_of(write_coco(content), metainfo=dict(classes=classes))
    assert dataset.get_data_info(2)['gt_labels'].tolist() == [39, 10, 1]
    assert dataset.get_data_info(1)['gt_labels'].tolist() == [1]
    assert [i for i in dataset.cat_ids if i is not None] == [2, 11, 40]
    assert len(dataset.metainfo['classes']) == 40


@pytest.mark.parametrize('text', ['car\nperson\n', '\ufeffcar\nperson', 'car\r\n\r\n person \r\n\r\n'])
def test_classes_from_a_text_file(write_coco, content, tmp_path, text):
    names = tmp_path / 'names.txt'
    names.write_bytes(text.encode())
    assert dataset_of(write_coco(content), metainfo=dict(classes=str(names))).metainfo['classes'] == ('car', 'person')


def test_a_category_called_as_unused_labels_are(write_coco, content):
    """Its boxes count, whether the file's classes are taken or chosen."""
    content['categories'][1]['name'] = 'N/A'  # id 2, of three boxes
    for metainfo in (None, dict(classes=['N/A', 'cat', 'car'])):
        dataset = dataset_of(write_coco(content), metainfo=metainfo)
        label = dataset.metainfo['classes'].index('N/A')
        assert dataset.cat_ids[label] == 2
        assert sum((dataset.get_data_info(i)['gt_labels'] == label).sum() for i in range(4)) == 3


def test_a_negative_category_id_is_a_category(write_coco, content):
    content['categories'][1]['id'] = -1
    for annotation in content['annotations']:
        annotation['category_id'] = {2: -1}.get(annotation['category_id'], annotation['category_id'])
    dataset = dataset_of(write_coco(content), metainfo=dict(classes=['person', 'N/A']))
    assert dataset.cat_ids == [-1, None]
    assert [dataset.get_data_info(i)['gt_labels'].tolist() for i in range(4)] == [[0], [0], [0], []]


def test_a_box_to_ignore_is_not_trained_on(write_coco, content):
    content['annotations'][0]['ignore'] = 1
    record = dataset_of(write_coco(content)).get_data_info(2)
    np.testing.assert_array_equal(record['gt_crowd'], [True, True, False])


@pytest.mark.parametrize('classes', [['person', 'car', 'cat', 'green'], ['zebra', 'car']])
def test_a_class_that_the_file_lacks_has_no_box(write_coco, content, classes):
    dataset = dataset_of(write_coco(content), metainfo=dict(classes=classes))
    assert dataset.metainfo['classes'] == tuple(classes)
    ids = dict(person=2, car=11, cat=40)
    assert dataset.cat_ids == [ids.get(name) for name in classes]
    labels = {label for i in range(4) for label in dataset.get_data_info(i)['gt_labels'].tolist()}
    assert labels == {label for label, name in enumerate(classes) if name in ids}


def test_a_class_that_is_misspelt_is_not_lacking(write_coco, content):
    """'persn' is near to a category that no class is called; 'green' is near to none."""
    with pytest.raises(DataError, match="has no class 'persn': did you mean person?"):
        dataset_of(write_coco(content), metainfo=dict(classes=['green', 'car', 'persn']))


def test_an_unknown_class_names_the_nearest(write_coco, content):
    with pytest.raises(DataError, match="has no class 'persn': did you mean person?"):
        dataset_of(write_coco(content), metainfo=dict(classes=['persn', 'cat']))
    with pytest.raises(DataError, match="has no class 'zebra': it has person, car, cat"):
        dataset_of(write_coco(content), metainfo=dict(classes=['zebra']))


def test_a_class_that_resembles_another_one_a_little_is_a_class(write_coco, content):
    """A part of the data without a 'cap' has the other class 'cat'."""
    assert dataset_of(write_coco(content), metainfo=dict(classes=['cap', 'car'])).cat_ids == [None, 11]
    with pytest.raises(DataError, match="has no class 'cap': it has person, car, cat"):
        dataset_of(write_coco(content), metainfo=dict(classes=['cap']))


@pytest.mark.parametrize('classes', [[], 'no_such_file', [1, 2], ['cat', 'cat']])
def test_wrong_class_lists(write_coco, content, classes):
    with pytest.raises(ConfigError, match=r'metainfo\.classes'):
        dataset_of(write_coco(content), metainfo=dict(classes=classes))


def test_no_image_left_says_why(write_coco, content):
    root = write_coco(content)
    with pytest.raises(DataError) as error:
        dataset_of(root, metainfo=dict(classes=['car']), filter_cfg=TRAIN)
    assert '0 of 4 images' in str(error.value)
    assert '3 have no box of the chosen classes' in str(error.value)
    assert '1 have only crowd or ignored boxes' in str(error.value)
    with pytest.raises(DataError, match='4 are smaller than 1000 pixels'):
        dataset_of(root, filter_cfg=dict(min_size=1000))


def test_a_file_without_images(write_coco, content):
    with pytest.raises(DataError, match='lists no image'):
        dataset_of(write_coco({**content, 'images': [], 'annotations': []}))


def test_missing_data_says_how_to_get_it(tmp_path, write_coco, content):
    with pytest.raises(DataError) as error:
        CocoDataset(
            data_root=tmp_path / 'none', ann_file='annotations/instances_val2017.json', data_prefix=dict(img='train/')
        )
    assert f'{tmp_path}/none/annotations/instances_val2017.json' in str(error.value)
    assert 'tools/download_coco.py' in str(error.value)
    assert 'FRDET_DATA_ROOT' in str(error.value)
    root = write_coco(content)
    with pytest.raises(DataError, match='No annotation file .*/other.json') as error:
        CocoDataset(data_root=root, ann_file='other.json', data_prefix=dict(img='images'))
    assert 'download' not in str(error.value)  # nobody else has a person's own file
    with pytest.raises(DataError, match='No image folder .*/pictures'):
        CocoDataset(data_root=root, ann_file='ann.json', data_prefix=dict(img='pictures'))


def test_wrong_arguments_of_a_config(write_coco, content):
    root = write_coco(content)
    with pytest.raises(ConfigError, match='filter_cfg has filter_emty_gt: it takes filter_empty_gt, min_size'):
        dataset_of(root, filter_cfg=dict(filter_emty_gt=True))
    with pytest.raises(ConfigError, match='data_prefix'):
        CocoDataset(data_root=root, ann_file='ann.json', data_prefix=dict(image='images'))
    for none in ([], 0):
        with pytest.raises(ConfigError, match='indices keeps no image'):
            dataset_of(root, indices=none)
    with pytest.raises(ConfigError, match="no argument 'anno_file'"):
        DATASETS.build(dict(type='CocoDataset', data_root=root, anno_file='ann.json', data_prefix=dict(img='images')))


@pytest.mark.parametrize('slash', ['', '/'])
def test_root_with_and_without_a_slash(write_coco, content, slash):
    assert len(dataset_of(f'{write_coco(content)}{slash}')) == 4


def test_records_are_packed(write_coco, content):
    """One byte array, no Python objects that a worker process would copy by counting references."""
    content['images'] = [{'id': i, 'file_name': f'{i:012d}.jpg', 'height': 480, 'width': 640} for i in range(500)]
    content['annotations'] = [
        {'id': k, 'image_id': k // 7, 'category_id': 2, 'bbox': [1.5, 2, 3, 4]} for k in range(3500)
    ]
    dataset = dataset_of(write_coco(content))
    assert dataset.data_list == []
    assert dataset.data_bytes.dtype == np.uint8
    # 7 boxes of 4 float32, 7 labels of 4 bytes, 7 flags: 147 bytes; the rest is names and numbers of the image.
    assert len(dataset.data_bytes) / len(dataset) < 147 + 160


def test_unpacked_and_partial_data_sets_give_the_same_records(write_coco, content):
    root = write_coco(content)
    whole, unpacked = dataset_of(root), dataset_of(root, serialize_data=False)
    part = dataset_of(root, indices=[2, 0])
    for record, other in [(whole[2], unpacked[2]), (whole[2], part[0]), (whole[0], part[1]), (whole[1], whole[-3])]:
        assert record.keys() == other.keys()
        for key in record.keys() - {'sample_idx'}:
            np.testing.assert_array_equal(record[key], other[key])


def test_an_annotation_without_a_picture_names_both(write_coco, content):
    root = write_coco(content)
    (root / 'images' / 'five.jpg').unlink()
    dataset = dataset_of(root, pipeline=[dict(type='LoadImage')])
    with pytest.raises(DataError, match=r'five\.jpg \(id 5\) is not on disk'):
        dataset[1]


@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_worker_hands_on_the_message_alone(write_coco, content, num_workers):
    root = write_coco(content)
    (root / 'images' / 'five.jpg').unlink()
    dataset = dataset_of(root, pipeline=[dict(type='LoadImage')])
    with pytest.raises(DataError) as error:
        list(DataLoader(dataset, sampler=[1], num_workers=num_workers, collate_fn=pseudo_collate))
    path = root / 'images' / 'five.jpg'
    assert str(error.value) == f'Image {path} (id 5) is not on disk: add the file, or remove it from the annotations'


def test_the_whole_pipeline(coco_root):
    pipeline = [
        dict(type='LoadImage'),
        dict(type='ResizeShortestEdge', short_side=(64, 96), max_size=128),
        dict(type='RandomFlip', prob=0.5),
        dict(type='FilterBoxes', min_side=1e-5),
        dict(type='PackDetInputs'),
    ]
    dataset = CocoDataset(
        data_root=coco_root.root,
        ann_file=coco_root.val_ann,
        data_prefix=dict(img=coco_root.val_prefix),
        pipeline=pipeline,
        filter_cfg=TRAIN,
    )
    annotations = json.loads((coco_root.root / coco_root.val_ann).read_text())['annotations']
    for index in range(6):
        data = dataset[index]
        sample = data['data_samples']
        assert data['inputs'].dtype == torch.uint8
        assert data['inputs'].shape == (3, *sample.img_shape)
        assert max(sample.img_shape) <= 128
        truth = [a for a in annotations if a['image_id'] == sample.img_id]
        assert len(sample.gt_instances) == sum(not a['iscrowd'] for a in truth)
        assert len(sample.ignored_instances) == sum(a['iscrowd'] for a in truth)
        assert bool((sample.gt_instances.bboxes[:, 2:] <= torch.tensor(sample.img_shape[::-1])).all())


def test_a_worker_can_receive_it(write_coco, content):
    dataset = pickle.loads(pickle.dumps(dataset_of(write_coco(content))))
    assert dataset.get_data_info(1)['img_id'] == 5
