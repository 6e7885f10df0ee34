import copy

import pytest
import torch
from mmengine.structures import InstanceData

from frdet.structures import DetDataSample, batch_ground_truth


def sample(count: int) -> DetDataSample:
    made = DetDataSample(metainfo={'img_id': count, 'img_shape': (30, 40)})
    boxes = torch.arange(count * 4, dtype=torch.float32).view(count, 4)
    made.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(count) + 5)
    return made


def test_fields_are_kept_apart() -> None:
    made = sample(2)
    made.pred_instances = InstanceData(bboxes=torch.ones(1, 4), scores=torch.ones(1), labels=torch.ones(1).long())
    made.ignored_instances = InstanceData(bboxes=torch.zeros(3, 4))
    assert [len(x) for x in (made.gt_instances, made.pred_instances, made.ignored_instances)] == [2, 1, 3]
    assert made.img_shape == (30, 40)
    assert 'gt_instances' in made and 'pred_instances' in made


@pytest.mark.parametrize('field', ['gt_instances', 'ignored_instances', 'pred_instances'])
def test_a_field_must_be_instances(field: str) -> None:
    with pytest.raises(AssertionError):
        setattr(DetDataSample(), field, {'bboxes': torch.zeros(0, 4)})


def test_a_copy_is_independent() -> None:
    made = sample(1)
    other = copy.deepcopy(made)
    other.gt_instances.bboxes += 1
    assert made.gt_instances.bboxes[0, 0] == 0


def test_moving_reaches_the_instances() -> None:
    assert sample(2).to(torch.float64).gt_instances.bboxes.dtype == torch.float64


def test_ground_truth_of_a_batch_is_padded() -> None:
    truth = batch_ground_truth([sample(1), sample(0), sample(3)])
    assert truth.boxes.shape == (3, 3, 4)
    assert truth.valid.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    assert truth.labels.tolist() == [[5, 0, 0], [0, 0, 0], [5, 6, 7]]
    assert truth.boxes[0].tolist() == [[0.0, 1.0, 2.0, 3.0], [0.0] * 4, [0.0] * 4]
    assert truth.boxes[2, 2].tolist() == [8.0, 9.0, 10.0, 11.0]
    assert truth.boxes.dtype == torch.float32 and truth.labels.dtype == torch.int64


def test_a_batch_without_any_box_has_one_place() -> None:
    truth = batch_ground_truth([sample(0), sample(0)])
    assert truth.boxes.shape == (2, 1, 4)
    assert truth.labels.shape == truth.valid.shape == (2, 1)
    assert not truth.valid.any()
    assert truth.labels.dtype == torch.int64
