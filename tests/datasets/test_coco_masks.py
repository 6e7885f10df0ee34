"""Masks of a COCO file, from the file to the sample of the model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torch.nn import functional as F

from frdet.config import load_config
from frdet.datasets import Annotations, CocoDataset, VocDataset
from frdet.datasets.checking import Findings
from frdet.datasets.checking.annotations import check_annotations
from frdet.datasets.coco import read_coco
from frdet.datasets.coco import write_coco as save
from frdet.datasets.coco_file import load_sections
from frdet.datasets.coco_rows import CocoRows
from frdet.datasets.masks import as_coco
from frdet.datasets.shapes import write_shapes
from frdet.datasets.wrappers import ConcatDataset
from frdet.errors import DataError
from frdet.registry import DATASETS, METRICS
from frdet.structures import batch_ground_truth

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = [dict(type='LoadImage'), dict(type='PackDetInputs')]
POLYGON = [[1.5, 2, 20.25, 4, 11, 30]]
#: The masks of ``small_coco``, in the order of its annotations. Image 7 has 60 x 100 pixels, image 3 has 60 x 40.
MASKS = [
    POLYGON,
    [[1, 2, 9, 3, 5, 20], [2, 2, 9, 9, 3, 30.5]],
    {'size': [60, 100], 'counts': [500, 30, 5470]},
    {'size': [60, 40], 'counts': '`21Ob3'},
    POLYGON,
]


@pytest.fixture
def with_masks(content):
    from pycocotools import mask

    MASKS[3]['counts'] = mask.frPyObjects({'size': [60, 40], 'counts': [80, 9, 2311]}, 60, 40)['counts'].decode()
    for annotation, one in zip(content['annotations'], MASKS, strict=True):
        annotation['segmentation'] = one
    return content


def dataset(root, **kwargs):
    given = dict(ann_file='ann.json', data_root=str(root), data_prefix=dict(img='images'), pipeline=PIPELINE)
    return CocoDataset(**{**given, 'with_masks': True, **kwargs})


def test_masks_are_those_of_pycocotools(write_coco, with_masks):
    root = write_coco(with_masks)
    reference = COCO(root / 'ann.json')
    data = dataset(root, test_mode=True)
    for k in range(len(data)):
        sample = data[k]['data_samples']
        own = [a for a in reference.imgToAnns[sample.img_id] if not a.get('iscrowd')]
        assert len(sample.gt_instances.masks) == len(own)
        for mask, annotation in zip(sample.gt_instances.masks.numpy(), own, strict=True):
            assert mask.any() and np.array_equal(mask, reference.annToMask(annotation))
        assert sample.gt_instances.masks.shape[1:] == sample.img_shape


def test_crowds_and_classes_keep_their_masks(write_coco, with_masks):
    data = dataset(write_coco(with_masks), test_mode=True, metainfo=dict(classes=['car', 'person']))
    info = data.get_data_info(2)  # image 7: a crowd of cars, then a person
    assert info['gt_labels'].tolist() == [0, 1]
    assert [type(mask) for mask in info['gt_masks']] == [np.ndarray, list]
    assert info['gt_masks'][0].sum() == 30
    assert info['gt_masks'][1][0].tolist() == [[1.5, 2], [20.25, 4], [11, 30]]
    assert data.get_data_info(3)['gt_masks'].shape == (0,)  # image 9 has no object


def test_without_masks_nothing_changes(write_coco, with_masks):
    root = write_coco(with_masks)
    data = dataset(root, with_masks=False, test_mode=True)
    assert data.annotations().masks is None
    assert 'gt_masks' not in data.get_data_info(2)
    assert 'masks' not in data[2]['data_samples'].gt_instances
    assert load_sections(root / 'ann.json')['annotations'].masks is None


def test_masks_are_read_in_pieces_and_otherwise(write_coco, with_masks):
    """An id that is a text, or a compressed file, takes another way through the reader."""
    path = write_coco(with_masks) / 'ann.json'
    assert isinstance(load_sections(path, with_masks=True)['annotations'], CocoRows)
    in_pieces = read_coco(path, with_masks=True)
    with_masks['annotations'][0]['id'] = 'first'
    whole = read_coco(write_coco(with_masks) / 'ann.json', with_masks=True)
    assert whole.masks.tolist() == in_pieces.masks.tolist()
    assert [as_coco(mask) for mask in whole.masks[[0, 1, 3]]] == [MASKS[0], MASKS[1], MASKS[3]]


def test_a_part_and_a_copy(write_coco, with_masks):
    read = read_coco(write_coco(with_masks) / 'ann.json', with_masks=True)
    part = read.subset(np.array([2, 1]))  # images 7 and 5
    assert part.masks.tolist() == [read.masks[k] for k in (0, 1, 2, 4)]
    again = Annotations(
        images=read.images,
        categories=read.categories,
        image_index=read.image_index,
        category_index=read.category_index,
        xywh=read.xywh,
        masks=read.masks,
    )
    assert again.masks.tolist() == read.masks.tolist()


def test_written_as_they_were_read(write_coco, with_masks, tmp_path):
    read = read_coco(write_coco(with_masks) / 'ann.json', with_masks=True)
    save(read, tmp_path / 'again.json')
    found = [
        annotation['segmentation'] for annotation in json.loads((tmp_path / 'again.json').read_text())['annotations']
    ]
    assert [found[k] for k in (0, 1, 3, 4)] == [MASKS[k] for k in (0, 1, 3, 4)]
    assert found[2]['size'] == [60, 100] and isinstance(found[2]['counts'], str)


@pytest.mark.parametrize(
    ('mask', 'expected'),
    [
        ([[1, 2, 3, 4]], r'annotations\[1\]\.segmentation has a polygon of 2 points'),
        ([[1, 2, 3, 4, 5]], r'annotations\[1\]\.segmentation has a polygon of 5 numbers: expected pairs'),
        (
            {'size': [60, 100], 'counts': [6000]},
            r"masks\[1\], of image 5 \('five\.jpg'\), is an RLE of \[60, 100\]: expected the size .*, \[80, 40\]",
        ),
        ('x', r'annotations\[1\]\.segmentation is a str: expected a list of polygons, or an RLE'),
        (7, r'annotations\[1\]\.segmentation is a int'),
    ],
)
def test_a_wrong_mask_is_named(write_coco, with_masks, mask, expected):
    with_masks['annotations'][1]['segmentation'] = mask
    root = write_coco(with_masks)
    with pytest.raises(DataError, match=rf'ann\.json: {expected}'):
        dataset(root)
    assert len(dataset(root, with_masks=False)) == 4
    findings = Findings()
    check_annotations(dataset(root, lazy_init=True), findings)
    assert findings['wrong annotation'].times == 1
    assert findings['wrong annotation'].examples[0].startswith('annotations[1] (id 2).segmentation ')


def test_background_images_can_be_joined(write_coco, with_masks, tmp_path):
    root = write_coco(with_masks)
    inner = dict(ann_file='ann.json', data_root=str(root), data_prefix=dict(img='images'), pipeline=PIPELINE)
    empty = dict(type='ImageFolder', data_prefix=dict(img=str(root / 'images')), pipeline=PIPELINE)
    empty['metainfo'] = dict(classes=['person', 'car', 'cat'])
    joined = ConcatDataset([CocoDataset(**inner, with_masks=True), DATASETS.build(empty)])
    truth = batch_ground_truth([joined[k]['data_samples'] for k in (2, 5)])  # image 7, and a background image
    assert truth.masks is not None and len(truth.masks) == 2


@pytest.mark.parametrize('kept', [[], [0, 1, 2, 4]])
def test_missing_masks_are_named(write_coco, with_masks, kept):
    """Also if only a crowd lacks its mask. A class that is not used needs none."""
    for k, annotation in enumerate(with_masks['annotations']):
        if k not in kept:
            del annotation['segmentation']
    root = write_coco(with_masks)
    first = r'3 \(three\.jpg\)'
    with pytest.raises(DataError, match=rf'{5 - len(kept)} of 5 objects have no mask, the first in image {first}'):
        dataset(root)
    if kept:
        assert len(dataset(root, metainfo=dict(classes=['cat', 'car'])).data_list or [1])


def test_a_format_without_masks_says_so(tmp_path):
    (tmp_path / 'a.xml').write_text(
        '<annotation><filename>a.jpg</filename><size><width>9</width><height>9</height></size><object><name>cat</name>'
        '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>'
    )
    with pytest.raises(DataError, match='1 of 1 objects have no mask, .* needs polygons or an RLE .* COCO'):
        VocDataset(ann_file=str(tmp_path), data_prefix=dict(img=str(tmp_path)), with_masks=True)


def test_a_count_that_is_not_of_the_objects():
    with pytest.raises(ValueError, match='masks has 2 entries: expected 1, one for each object'):
        Annotations(
            images=[dict(file_name='a.jpg', height=9, width=9)],
            categories=['a'],
            image_index=[0],
            category_index=[0],
            xywh=[[0, 0, 5, 5]],
            masks=[POLYGON, POLYGON],
        )


def test_mistakes_in_masks_are_found(write_coco, with_masks):
    """The box of annotation 0 begins at (10, 20), its mask at (1.5, 2). Those of 1 and 3 fit their boxes."""
    by_id = {annotation['id']: annotation for annotation in with_masks['annotations']}
    by_id[2]['bbox'] = [1, 2, 8, 29]
    by_id[4]['bbox'] = [1, 20, 1, 9]
    by_id[3]['segmentation'] = {'size': [60, 100], 'counts': [6000]}
    del by_id[5]['segmentation']
    findings = Findings()
    check_annotations(dataset(write_coco(with_masks), lazy_init=True), findings)
    examples = {kind: findings[kind].examples for kind in findings if 'mask' in kind}
    assert examples == {
        'object without a mask': ('annotations[4] (id 5)',),
        'mask without area': ('annotations[2] (id 3)',),
        'box unlike its mask': (
            'annotations[0] (id 1): bbox [10, 20, 30, 40.5] in image 7 of 100x60, the mask is in [1.5, 2, 20.25, 30]',
        ),
    }


def test_the_shipped_data_configs(tmp_path):
    """Drawn, trained and tested with masks; the evaluator takes the same masks for right."""
    cfg = load_config(ROOT / 'configs/_base_/datasets/shapes_instance.py')
    write_shapes(tmp_path / 'shapes', num_train=3, num_val=3, image_size=(64, 80))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(tmp_path / 'shapes')
        data = DATASETS.build(loader.dataset)
        sample = data[0]['data_samples']
        assert sample.gt_instances.masks.shape == (len(sample.gt_instances), *sample.img_shape)
    metric = METRICS.build(cfg.test_evaluator)
    metric.use_dataset(data)
    metric.dataset_meta = data.metainfo
    for k in range(len(data)):
        sample = data[k]['data_samples']
        truth = sample.gt_instances
        original = truth.new(masks=F.interpolate(truth.masks[:, None], sample.ori_shape)[:, 0] > 0, labels=truth.labels)
        original.bboxes = truth.bboxes / torch.tensor(sample.scale_factor * 2)
        original.scores = torch.ones(len(truth))
        sample.pred_instances = original
        metric.process({}, [sample.to_dict()])
    values = metric.evaluate(len(data))
    assert values['coco/segm_mAP_50'] > 0.99 and values['coco/bbox_mAP'] > 0.99
    both = load_config(ROOT / 'configs/_base_/datasets/coco_instance.py')
    assert all(both[f'{split}_dataloader'].dataset.with_masks for split in ('train', 'val', 'test'))
    assert tuple(both.val_evaluator.metric) == tuple(both.test_evaluator.metric) == ('bbox', 'segm')
