import pytest
import torch
import torchvision
from mmengine.structures import InstanceData
from torch import Tensor

from frdet.structures import box_area, box_iou, clip_boxes, flip_boxes, scale_boxes, to_network, to_original


def random_boxes(*shape: int) -> Tensor:
    corner = torch.rand(*shape, 2) * 50
    return torch.cat([corner, corner + torch.rand(*shape, 2) * 50], dim=-1)


def test_area_by_hand() -> None:
    boxes = torch.tensor([[[1.0, 2.0, 4.0, 7.0]], [[3.0, 3.0, 3.0, 9.0]]])
    assert box_area(boxes).tolist() == [[15.0], [0.0]]  # 3 * 5, 0 * 6


def test_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    b = torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 2.0, 6.0, 6.0], [4.0, 0.0, 8.0, 4.0], [1.0, 1.0, 3.0, 3.0]])
    # The same; 2 * 2 / (16 + 16 - 4); they touch; 4 / 16
    torch.testing.assert_close(box_iou(a, b), torch.tensor([[1.0, 4 / 28, 0.0, 0.25]]))


def test_iou_is_torchvisions() -> None:
    a, b = random_boxes(20), random_boxes(30)
    torch.testing.assert_close(box_iou(a, b), torchvision.ops.box_iou(a, b))


def test_iou_of_a_batch() -> None:
    a, b = random_boxes(3, 5), random_boxes(3, 7)
    found = box_iou(a, b)
    assert found.shape == (3, 5, 7)
    for i in range(3):
        torch.testing.assert_close(found[i], torchvision.ops.box_iou(a[i], b[i]))
    shared = box_iou(a, b[0])
    assert shared.shape == (3, 5, 7)
    torch.testing.assert_close(shared[2], torchvision.ops.box_iou(a[2], b[0]))


def test_iou_of_empty_boxes_is_zero_not_nan() -> None:
    point = torch.tensor([[3.0, 3.0, 3.0, 3.0]])
    assert box_iou(point, point).tolist() == [[0.0]]
    assert box_iou(torch.zeros(0, 4), random_boxes(3)).shape == (0, 3)


def test_clip_each_image_to_its_own_size() -> None:
    box = torch.tensor([-5.0, -6.0, 70.0, 80.0])
    boxes = box.expand(2, 1, 4)
    sizes = torch.tensor([[[40.0, 60.0]], [[90.0, 50.0]]])  # (height, width)
    assert clip_boxes(boxes, sizes).tolist() == [[[0.0, 0.0, 60.0, 40.0]], [[0.0, 0.0, 50.0, 80.0]]]


def test_clip_is_torchvisions() -> None:
    boxes = random_boxes(30) - 20
    expected = torchvision.ops.clip_boxes_to_image(boxes, (33, 44))
    torch.testing.assert_close(clip_boxes(boxes, torch.tensor([33.0, 44.0])), expected)


def test_boxes_outside_become_empty() -> None:
    assert clip_boxes(torch.tensor([[50.0, 5.0, 60.0, 8.0]]), torch.tensor([20.0, 30.0])).tolist() == [
        [30.0, 5.0, 30.0, 8.0]
    ]


def test_scale_takes_x_first() -> None:
    assert scale_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), (10.0, 100.0)).tolist() == [[10.0, 200.0, 30.0, 400.0]]


def test_flip_by_hand() -> None:
    assert flip_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 10).tolist() == [[7.0, 2.0, 9.0, 4.0]]


@pytest.mark.parametrize('width', [100.0, 101.0])
def test_flipping_twice_changes_nothing(width: float) -> None:
    boxes = random_boxes(2, 5)
    torch.testing.assert_close(flip_boxes(flip_boxes(boxes, width), width), boxes)


#: From (50, 100), the network's, to (100, 50): x halves, y doubles. Mirrored, x is 100 - x before.
NETWORK = [[10.0, 10.0, 90.0, 40.0], [4.0, 0.0, 6.0, 50.0]]
ORIGINAL = {
    False: [[5.0, 20.0, 45.0, 80.0], [2.0, 0.0, 3.0, 100.0]],
    True: [[5.0, 20.0, 45.0, 80.0], [47.0, 0, 48, 100]],
}


@pytest.mark.parametrize('flip', [False, True])
def test_there_and_back_by_hand(flip: bool) -> None:
    found = InstanceData(bboxes=torch.tensor(NETWORK), labels=torch.tensor([1, 2]))
    there = to_original(found, (50, 100), (100, 50), flip=flip)
    assert there.bboxes.tolist() == ORIGINAL[flip]
    back = to_network(there, (50, 100), (100, 50), flip=flip)
    assert back.bboxes.tolist() == NETWORK
    assert back.labels.tolist() == [1, 2]


@pytest.mark.parametrize('flip', [False, True])
def test_masks_on_the_way_back_by_hand(flip: bool) -> None:
    """Rows are doubled. Of four columns two remain, the ones whose centres are right of those of the new pixels."""
    masks = torch.tensor([[[1, 1, 0, 0], [0, 1, 0, 1]], [[0, 0, 1, 0], [0, 0, 0, 0]]]).bool()
    found = InstanceData(bboxes=torch.zeros(2, 4), masks=masks)
    back = to_network(found, (4, 2), (2, 4), flip=flip).masks
    expected = torch.tensor([[[1, 0], [1, 0], [1, 1], [1, 1]], [[0, 0]] * 4]).bool()
    assert back.dtype == torch.bool and torch.equal(back, expected.flip(2) if flip else expected)
    assert found.masks is masks and to_network(found[:0], (4, 2), (2, 4)).masks.shape == (0, 4, 2)


def test_what_was_given_stays_as_it_is() -> None:
    found = InstanceData(bboxes=torch.tensor(NETWORK), metainfo={'img_id': 3})
    for way in (to_original, to_network):
        assert way(found, (50, 100), (100, 50), flip=True).img_id == 3
        assert found.bboxes.tolist() == NETWORK


def test_boxes_beyond_the_original_are_cut_on_the_way_there_alone() -> None:
    """(-20, 60) is cut to (0, 60); what has no width then is dropped. The way to the network keeps both."""
    found = InstanceData(bboxes=torch.tensor([[-20.0, 0.0, 60.0, 10.0], [-8.0, 0.0, -2.0, 10.0]]))
    assert to_original(found, (50, 100), (50, 100)).bboxes.tolist() == [[0, 0, 60, 10]]
    assert to_network(found, (100, 200), (50, 100)).bboxes.tolist() == [[-40, 0, 120, 20], [-16, 0, -4, 20]]


@pytest.mark.parametrize('flip', [False, True])
def test_masks_move_with_their_boxes(flip: bool) -> None:
    """The right half of a grid on a box of 4 x 4 pixels, in an image that is mirrored, and twice as large as before."""
    found = InstanceData(bboxes=torch.tensor([[0.0, 0.0, 4.0, 4.0], [2.0, 0.0, 2.0, 4.0]]))
    found.masks = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]]).expand(2, -1, -1)
    there = to_original(found, (4, 8), (2, 4), flip=flip)
    assert there.masks.tolist() == [[[0, 0, 1, 0]] * 2] if flip else [[[0, 1, 0, 0]] * 2]
    assert there.masks.dtype == torch.bool and len(there) == 1
