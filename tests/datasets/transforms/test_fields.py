"""Fields of a user's own, which no transform knows, and boxes under operations that a user's transform needs."""

from typing import Any

import numpy as np
import pytest

from frdet.datasets.transforms import (
    FilterBoxes,
    PackDetInputs,
    RandomFlip,
    Resize,
    geometry,
    move_fields,
    register_field,
)
from frdet.datasets.transforms.geometry import ResizeShortestEdge
from frdet.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _fields_of_its_own(monkeypatch):
    monkeypatch.setattr(geometry, 'FIELDS', dict(geometry.FIELDS))


def flip_keypoints(points, size):
    """A left eye becomes a right eye: the two points of an object change their places."""
    return (np.array([size[1], 0], np.float32) - points * np.array([1, -1], np.float32))[:, ::-1]


def resize_masks(masks, size, scale):
    rows = (np.arange(size[0]) / scale[1]).astype(int)
    columns = (np.arange(size[1]) / scale[0]).astype(int)
    return masks[:, rows][:, :, columns]


def image(**others: Any) -> dict[str, Any]:
    """60 rows of 100 pixels with two objects, of which the second has no width."""
    return dict(
        img=np.zeros((60, 100, 3), dtype=np.uint8),
        img_path='a.jpg',
        gt_bboxes=np.array([[10, 20, 40, 50], [70, 10, 70, 30]], dtype=np.float32),
        gt_labels=np.array([3, 4]),
        gt_crowd=np.array([False, False]),
        **others,
    )


def test_keypoints_through_the_whole_pipeline():
    """Halved: (5, 10), (20, 25). In 50 columns x becomes 50 - x: (45, 10), (30, 25), which then change places."""
    register_field('gt_keypoints', resize=lambda points, size, scale: points * np.float32(scale), flip=flip_keypoints)
    register_field('gt_age')
    points = np.array([[[10, 20], [40, 50]], [[70, 10], [70, 30]]], dtype=np.float32)
    results = image(gt_keypoints=points, gt_age=np.array([7, 8]))
    for transform in (Resize(scale=(30, 50)), RandomFlip(prob=1.0), FilterBoxes()):
        results = transform(results)
    packed = PackDetInputs(instance_keys=['gt_keypoints', 'gt_age'])(results)['data_samples'].gt_instances
    assert packed.bboxes.tolist() == [[30, 10, 45, 25]]
    assert packed.keypoints.tolist() == [[[30, 25], [45, 10]]]
    assert packed.age.tolist() == [7]
    assert packed.labels.tolist() == [3]


def test_masks_through_the_whole_pipeline():
    """The object's pixels are rows 20 to 49 and columns 10 to 39: halved 10 to 24 and 5 to 19, mirrored 30 to 44."""
    register_field('gt_masks', resize=resize_masks, flip=lambda masks, size: masks[:, :, ::-1])
    masks = np.zeros((2, 60, 100), dtype=bool)
    masks[0, 20:50, 10:40] = True
    results = image(gt_masks=masks)
    for transform in (ResizeShortestEdge(short_side=30), RandomFlip(prob=1.0), FilterBoxes()):
        results = transform(results)
    packed = PackDetInputs(instance_keys=['gt_masks'])(results)['data_samples'].gt_instances
    assert packed.masks.shape == (1, 30, 50)
    rows, columns = packed.masks[0].nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 24, 30, 44)
    assert packed.masks.sum() == 15 * 15


def test_boxes_follow_a_crop_by_hand():
    """Of 30 rows and 50 columns from (20, 30) on: the first box is cut on two sides, the second lies outside."""
    results = image()
    move_fields(results, 'crop', (30, 50), (20, 30))
    assert results['gt_bboxes'].tolist() == [[0, 0, 20, 20], [50, 0, 50, 0]]
    assert results['gt_bboxes'].dtype == np.float32
    assert results['gt_labels'].tolist() == [3, 4]


def test_boxes_follow_an_affine_map_by_hand():
    """A quarter turn: (x, y) becomes (60 - y, x), in 100 rows of 60 pixels. Then x is sheared by half of the new y."""
    results = image()
    move_fields(results, 'affine', (100, 60), np.array([[0.0, -1, 60], [1, 0, 0]]))
    assert results['gt_bboxes'].tolist() == [[10, 10, 40, 40], [30, 70, 50, 70]]
    move_fields(results, 'affine', (100, 60), np.array([[1, 0.5, 0], [0, 1, 0]]))
    assert results['gt_bboxes'].tolist() == [[15, 10, 60, 40], [60, 70, 60, 70]]
    assert results['gt_bboxes'].dtype == np.float32


def test_a_field_that_would_stay_behind_is_refused():
    points = np.zeros((2, 1, 2), dtype=np.float32)
    with pytest.raises(ConfigError, match=r'a\.jpg has the field gt_keypoints, .* for resize: expected .*register'):
        Resize(scale=(30, 50))(image(gt_keypoints=points))
    register_field('gt_keypoints', resize=lambda points, size, scale: points)
    results = Resize(scale=(30, 50))(image(gt_keypoints=points))
    with pytest.raises(ConfigError, match=r"no function for flip: expected .*\('gt_keypoints', flip=\.\.\.\)"):
        RandomFlip(prob=1.0)(results)


def test_a_field_needs_one_entry_for_each_box():
    for transform in (FilterBoxes(), PackDetInputs(instance_keys=['gt_age'])):
        with pytest.raises(DataError, match=r'a\.jpg: gt_age has 3 entries, and there are 2 boxes: expected one entry'):
            transform(image(gt_age=np.array([1, 2, 3])))


def test_an_operation_that_a_field_does_not_know():
    with pytest.raises(TypeError, match='rotate'):
        register_field('gt_keypoints', rotate=lambda points, size: points)
