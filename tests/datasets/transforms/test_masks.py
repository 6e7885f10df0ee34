"""Masks follow the pixels of their image, and are drawn as pycocotools and torchvision draw them."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from frdet.datasets.masks import pack_mask
from frdet.datasets.transforms import FilterBoxes, PackDetInputs, RandomFlip, ResizeShortestEdge, move_fields
from frdet.datasets.transforms.masks import draw_masks, entries_of

SQUARE = [10, 20, 40, 20, 40, 50, 10, 50]
STAR = [5.5, 3.2, 60.1, 22.7, 91.3, 4.4, 77.7, 55.1, 30.2, 44.9, 12.8, 58.6]


def image(*masks):
    """60 rows of 100 pixels. The boxes do not matter here."""
    n = len(masks)
    return dict(
        img=np.zeros((60, 100, 3), dtype=np.uint8),
        img_path='a.jpg',
        gt_bboxes=np.tile(np.array([10, 20, 40, 50], dtype=np.float32), (n, 1)),
        gt_labels=np.arange(n),
        gt_crowd=np.zeros(n, dtype=bool),
        gt_masks=entries_of([pack_mask(mask) for mask in masks]),
    )


def rle(pixels):
    return coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8))


def rectangle(rows, columns, size=(60, 100)):
    pixels = np.zeros(size, dtype=np.uint8)
    pixels[rows, columns] = 1
    return pixels


def test_polygons_by_hand():
    """Mirrored in 100 columns, halved, cut from (10, 5) on, turned by a quarter: (x, y) becomes (40 - y, x)."""
    results = image([SQUARE])
    expected = {
        'flip': [[90, 20], [60, 20], [60, 50], [90, 50]],
        'resize': [[45, 10], [30, 10], [30, 25], [45, 25]],
        'crop': [[35, 5], [20, 5], [20, 20], [35, 20]],
        'affine': [[35, 35], [35, 20], [20, 20], [20, 35]],
    }
    how = {'resize': [(0.5, 0.5)], 'flip': [], 'crop': [(10, 5)], 'affine': [np.array([[0.0, -1, 40], [1, 0, 0]])]}
    size = {'flip': (60, 100), 'resize': (30, 50), 'crop': (20, 30), 'affine': (30, 40)}
    for operation, points in expected.items():
        move_fields(results, operation, size[operation], *how[operation])
        assert [one.tolist() for one in results['gt_masks'][0]] == [points], operation


def test_bitmaps_by_hand():
    """The same operations on rows 20 to 49 and columns 10 to 39, pixel by pixel."""
    results = image(rle(rectangle(slice(20, 50), slice(10, 40))))
    for operation, size, how, rows, columns in [
        ('flip', (60, 100), [], slice(20, 50), slice(60, 90)),
        ('resize', (30, 50), [(0.5, 0.5)], slice(10, 25), slice(30, 45)),
        ('crop', (20, 30), [(10, 5)], slice(5, 20), slice(20, 30)),  # 35 is outside the new image
        ('affine', (30, 40), [np.array([[0.0, -1, 40], [1, 0, 0]])], slice(20, 30), slice(20, 35)),
        ('crop', (40, 50), [(-5, -10)], slice(30, 40), slice(25, 40)),  # from outside come zeros
    ]:
        move_fields(results, operation, size, *how)
        assert np.array_equal(results['gt_masks'][0], rectangle(rows, columns, size)), operation


@pytest.mark.parametrize('size', [(31, 47), (150, 211), (60, 33)])
def test_a_resized_bitmap_is_pillows(size):
    pixels = (np.random.default_rng(0).random((60, 100)) < 0.5).astype(np.uint8)
    results = image(rle(pixels))
    move_fields(results, 'resize', size, (size[1] / 100, size[0] / 60))
    expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(results['gt_masks'][0], expected)


def test_masks_are_drawn_after_all_transforms():
    """Scaled by 1.5, mirrored in 150 columns. Polygons are exact: drawn at the last size, and not resized."""
    results = image([STAR], [SQUARE, STAR])
    for transform in (ResizeShortestEdge(short_side=90), RandomFlip(prob=1.0), FilterBoxes(), PackDetInputs()):
        results = transform(results)
    moved = [
        np.reshape([150 - 1.5 * x if k % 2 == 0 else 1.5 * x for k, x in enumerate(p)], -1) for p in (STAR, SQUARE)
    ]
    expected = coco_mask.decode(coco_mask.frPyObjects(moved, 90, 150)).astype(bool)
    masks = results['data_samples'].gt_instances.masks
    assert masks.dtype == torch.uint8 and masks.shape == (2, 90, 150)
    assert np.array_equal(masks[0], expected[..., 0])
    assert np.array_equal(masks[1], expected.any(axis=2))


@pytest.mark.parametrize('scale', [(90, 1333), (37, 1333), (60, 1333), (100, 120)])
def test_torchvisions_masks(scale):
    """Torchvision draws masks in the original image and resizes their pixels."""
    bitmaps = [rectangle(slice(3, 40), slice(5, 70)), draw_masks(entries_of([pack_mask([STAR])]), (60, 100))[0]]
    side, longest = scale
    transform = GeneralizedRCNNTransform(side, longest, [0.0] * 3, [1.0] * 3)
    target = dict(boxes=torch.zeros(2, 4), masks=torch.from_numpy(np.stack(bitmaps)))
    expected = transform.resize(torch.zeros(3, 60, 100), target)[1]['masks']
    results = image(rle(bitmaps[0]), [STAR])
    for step in (ResizeShortestEdge(short_side=side, max_size=longest, backend='torch'), PackDetInputs()):
        results = step(results)
    assert torch.equal(results['data_samples'].gt_instances.masks, expected)


@pytest.mark.parametrize('scale', [(90, 1333), (37, 1333), (100, 120)])
def test_mmdetections_masks(scale):
    """MMDetection loads polygons as bitmaps (poly2mask=True), and resizes them by OpenCV's nearest neighbour."""
    bitmaps = [rectangle(slice(3, 40), slice(5, 70)), draw_masks(entries_of([pack_mask([STAR])]), (60, 100))[0]]
    results = image(rle(bitmaps[0]), [STAR])
    results = ResizeShortestEdge(short_side=scale[0], max_size=scale[1], backend='cv2')(results)
    height, width = results['img_shape']
    expected = [cv2.resize(one, (width, height), interpolation=cv2.INTER_NEAREST) for one in bitmaps]
    assert np.array_equal(PackDetInputs()(results)['data_samples'].gt_instances.masks, np.stack(expected))


def test_masks_stay_with_their_objects():
    results = image([SQUARE], [STAR], rle(rectangle(slice(0, 9), slice(0, 9))), [STAR])
    results['gt_bboxes'][1] = 0
    results['gt_crowd'][3] = True
    sample = PackDetInputs()(FilterBoxes()(results))['data_samples']
    assert sample.gt_instances.labels.tolist() == [0, 2]
    assert sample.gt_instances.masks.flatten(1).sum(1).tolist() == [900, 81]
    assert sample.ignored_instances.labels.tolist() == [3] and 'masks' not in sample.ignored_instances


@pytest.mark.parametrize('backend', ['pillow', 'cv2', 'torch'])
def test_no_object(backend):
    results = RandomFlip(prob=1.0)(ResizeShortestEdge(short_side=30, backend=backend)(image()))
    assert PackDetInputs()(results)['data_samples'].gt_instances.masks.shape == (0, 30, 50)


def test_two_bitmaps_stay_two_entries():
    pixels = rle(rectangle(slice(0, 9), slice(0, 9)))
    assert entries_of([pack_mask(pixels)] * 2).shape == (2,)
