import numpy as np
import pytest
import torch

from frdet.datasets.transforms import FilterBoxes, PackDetInputs, RandomFlip
from frdet.errors import ConfigError


def results_of(boxes, labels=None, crowd=None):
    count = len(boxes)
    return dict(
        img=np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3),
        img_id=4,
        img_shape=(4, 6),
        gt_bboxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        gt_labels=np.arange(count) if labels is None else np.array(labels),
        gt_crowd=np.zeros(count, dtype=bool) if crowd is None else np.array(crowd),
    )


def test_boxes_without_area_go():
    """Kept: the first and the last. Dropped: no width, no height, negative width, a side of exactly the limit."""
    boxes = [[0, 0, 1, 1], [2, 0, 2, 1], [0, 3, 1, 3], [3, 0, 2, 1], [0, 0, 1e-5, 1], [0, 0, 2e-5, 1]]
    results = FilterBoxes(min_side=1e-5)(results_of(boxes, crowd=[0, 0, 0, 0, 0, 1]))
    assert results['gt_labels'].tolist() == [0, 5]
    assert results['gt_crowd'].tolist() == [0, 1]
    assert results['gt_bboxes'].shape == (2, 4)


def test_all_boxes_may_go():
    results = FilterBoxes(min_side=10)(results_of([[0, 0, 1, 1]]))
    packed = PackDetInputs()(results)
    assert len(packed['data_samples'].gt_instances) == 0


def test_wrong_limit():
    with pytest.raises(ConfigError, match='0 or more'):
        FilterBoxes(min_side=-1)


def test_packed_by_hand():
    results = results_of([[0, 0, 1, 1], [1, 1, 3, 3]], labels=[5, 2], crowd=[True, False])
    packed = PackDetInputs()(results)
    sample = packed['data_samples']
    assert packed['inputs'].shape == (3, 4, 6)
    assert packed['inputs'].is_contiguous()
    assert packed['inputs'][2, 1, 3] == results['img'][1, 3, 2]
    assert sample.gt_instances.bboxes.tolist() == [[1, 1, 3, 3]]
    assert sample.gt_instances.labels.tolist() == [2]
    assert sample.ignored_instances.labels.tolist() == [5]
    assert sample.gt_instances.bboxes.dtype == torch.float32
    assert sample.gt_instances.labels.dtype == torch.int64
    assert sample.metainfo == dict(img_id=4, img_shape=(4, 6))


def test_an_image_without_truth():
    sample = PackDetInputs()(dict(img=np.zeros((4, 6, 3), dtype=np.uint8)))['data_samples']
    assert sample.gt_instances.bboxes.shape == (0, 4)
    assert sample.ignored_instances.labels.shape == (0,)


@pytest.mark.filterwarnings('error')
def test_mirrored_and_read_only_images_become_tensors_of_their_own():
    results = results_of([[0, 0, 1, 1]])
    image = results['img']
    image.flags.writeable = False
    packed = PackDetInputs()(RandomFlip(prob=1.0)(results))
    assert packed['inputs'][0, 0, 0] == image[0, -1, 0]
    packed['inputs'].zero_()
    assert image.any()


def test_metainfo_is_a_choice():
    results = results_of([[0, 0, 1, 1]]) | dict(ori_shape=(4, 6), flip=False, camera='left')
    keys = ['img_id', 'img_shape', 'ori_shape', 'flip', 'camera']
    sample = PackDetInputs(meta_keys=keys)(results)['data_samples']
    assert sample.metainfo == dict(img_id=4, img_shape=(4, 6), ori_shape=(4, 6), flip=False, camera='left')
    with pytest.raises(
        ConfigError, match='An image has no camera, which PackDetInputs is to pack: expected one of img'
    ):
        PackDetInputs(meta_keys=keys)(results_of([[0, 0, 1, 1]]))
    with pytest.raises(ConfigError, match='meta_keys has no flip: expected img_shape, ori_shape and flip'):
        PackDetInputs(meta_keys=['img_id', 'img_shape', 'ori_shape'])


def test_fields_to_pack_are_a_choice():
    """They are split as boxes are; an image without boxes has no truth, and needs no fields."""
    pack = PackDetInputs(instance_keys=['gt_age'])
    results = results_of([[0, 0, 1, 1], [1, 1, 3, 3]], crowd=[True, False]) | dict(gt_age=np.array([8, 9]))
    sample = pack(results)['data_samples']
    assert sample.gt_instances.age.tolist() == [9]
    assert sample.ignored_instances.age.tolist() == [8]
    with pytest.raises(ConfigError, match='has no gt_age, which PackDetInputs is to pack'):
        pack(results_of([[0, 0, 1, 1]]))
    assert len(pack(dict(img=np.zeros((4, 6, 3), dtype=np.uint8)))['data_samples'].gt_instances) == 0
