import copy
from typing import Any

import pytest
import torch
from mmengine.structures import InstanceData

from frdet.errors import DataError
from frdet.structures import DetDataSample, batch_ground_truth, check_truth


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


def test_labels_of_other_integers_become_int64() -> None:
    made = sample(2)
    made.gt_instances.labels = made.gt_instances.labels.to(torch.uint8)
    truth = batch_ground_truth([made, sample(1)])
    assert truth.labels.dtype == torch.int64
    assert truth.labels.tolist() == [[5, 6], [5, 0]]


BOX = [[1.0, 2.0, 3.0, 4.0]]
#: Boxes and labels of an image that a detector of three classes cannot be trained on, and what is said of them.
WRONG: dict[str, tuple[Any, Any, str]] = {
    'minus one': (BOX, torch.tensor([-1]), 'found the label -1: expected 0 to 2, as there are 3 classes'),
    'the background': (BOX, torch.tensor([3]), 'found the label 3: expected 0 to 2'),
    'far above': (BOX, torch.tensor([6]), 'found the label 6: expected 0 to 2'),
    'one of several': (BOX * 3, torch.tensor([0, 7, 2], dtype=torch.int32), 'found the label 7'),
    'fractions': (BOX, torch.tensor([1.0]), 'labels are of torch.float32: expected int64'),
    'truths': (BOX, torch.tensor([True]), 'labels are of torch.bool: expected int64'),
    'one-hot': (BOX * 2, torch.eye(2, dtype=torch.int64), r'labels \(2, 2\): expected \(n, 4\) and \(n,\)'),
    'a list': (BOX, [1], 'expected the tensors bboxes and labels'),
    'no labels': (BOX, None, 'gt_instances has bboxes: expected the tensors'),
    'five numbers': ([[1.0, 2.0, 3.0, 4.0, 0.5]], torch.tensor([1]), r'boxes \(1, 5\) and'),
    'polygons': ([[[1.0, 2.0], [3.0, 4.0]]], torch.tensor([1]), r'boxes \(1, 2, 2\) and'),
    'not a number': (
        [[0.0, 0, 1, 1], [1, float('nan'), 3, 4]],
        torch.tensor([0, 0]),
        r'the box \[1.0, nan, 3.0, 4.0\]',
    ),
    'infinite': ([[0.0, 0, float('inf'), 1]], torch.tensor([0]), 'expected finite x1'),
}


@pytest.mark.parametrize(('boxes', 'labels', 'message'), WRONG.values(), ids=WRONG)
def test_truth_that_would_be_trained_on_wrongly(boxes: Any, labels: Any, message: str) -> None:
    wrong = DetDataSample(metainfo={'img_path': 'photos/7.jpg'})
    wrong.gt_instances = InstanceData(bboxes=torch.tensor(boxes))
    if labels is not None:
        wrong.gt_instances.labels = labels
    good = DetDataSample()
    good.gt_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    check_truth([good])
    with pytest.raises(DataError, match=rf'Ground truth of photos/7\.jpg: .*{message}'):
        check_truth([good, wrong], 3)


def test_every_class_may_be_trained_on() -> None:
    made = sample(4)  # labels 5 to 8
    check_truth([made], 9)
    check_truth([made])
    with pytest.raises(DataError, match='Ground truth of image 4: found the label 8: expected 0 to 7'):
        check_truth([made], 8)
    with pytest.raises(DataError, match='image without an id: gt_instances has nothing'):
        check_truth([DetDataSample()])


def test_masks_of_a_batch_lie_one_after_the_other() -> None:
    """Two images of 2 x 3 and 4 x 2 pixels with 2 and 1 objects: all in 4 x 3. Object 0 of image 1 is in row 2.

    The last row of the first image and the last column of the second are repeated once.
    """
    samples = [sample(2), sample(1)]
    samples[0].gt_instances.masks = torch.ones(2, 2, 3, dtype=torch.uint8)
    samples[1].gt_instances.masks = torch.ones(1, 4, 2, dtype=torch.uint8)
    truth = batch_ground_truth(samples)
    assert truth.masks is not None
    assert truth.masks[1].tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0]]
    assert truth.masks[2].tolist() == [[1, 1, 1]] * 4
    assert truth.mask_index(torch.tensor([[0, 1], [0, 0]])).tolist() == [[0, 1], [2, 2]]


def test_masks_of_images_without_objects() -> None:
    """An image without any after one with two, and a batch without any: every index is legal."""
    samples = [sample(2), sample(0)]
    samples[0].gt_instances.masks = torch.ones(2, 2, 3, dtype=torch.uint8)
    samples[1].gt_instances.masks = torch.ones(0, 2, 3, dtype=torch.uint8)
    index = torch.tensor([[0, 1], [0, 0]])
    assert batch_ground_truth(samples).mask_index(index).tolist() == [[0, 1], [1, 1]]
    truth = batch_ground_truth(samples[1:])
    assert truth.masks is not None
    assert truth.masks.tolist() == [[[0, 0, 0], [0, 0, 0]]]
    assert truth.mask_index(index[1:]).tolist() == [[0, 0]]


def test_a_batch_has_masks_only_if_every_sample_has() -> None:
    samples = [sample(1), sample(0)]
    samples[0].gt_instances.masks = torch.ones(1, 2, 3, dtype=torch.uint8)
    assert batch_ground_truth(samples).masks is None


@pytest.mark.parametrize('shape', [(1, 30, 40), (2, 30, 41), (2, 30)])
def test_masks_of_another_shape(shape: tuple[int, ...]) -> None:
    wrong = sample(2)
    object.__setattr__(wrong.gt_instances, 'masks', torch.ones(shape, dtype=torch.uint8))
    wrong.gt_instances._data_fields.add('masks')
    with pytest.raises(DataError, match=r'masks .*expected \(2, 30, 40\), one for each box'):
        check_truth([wrong])
