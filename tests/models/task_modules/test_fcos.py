import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxLinearCoder

from frdet.models.task_modules import AnchorGenerator, DistanceCoder, FCOSAssigner
from frdet.structures import GroundTruth

STRIDES = (8, 16, 32)
ANCHORS = AnchorGenerator(strides=STRIDES, sizes=tuple((s,) for s in STRIDES), ratios=(1.0,))
SHAPES = [(16, 20), (8, 10), (4, 5)]


def truth_of(*images: list[tuple[float, ...]]) -> GroundTruth:
    count = max(map(len, images))
    rows = [[*boxes, *[(0.0,) * 4] * (count - len(boxes))] for boxes in images]
    valid = torch.tensor([[i < len(boxes) for i in range(count)] for boxes in images])
    return GroundTruth(torch.tensor(rows), torch.zeros(valid.shape, dtype=torch.int64), valid)


def slow(boxes: list[tuple[float, ...]], radius: float, reach: tuple[float, float]) -> list[int]:
    """The object of every cell, -1 for none: one loop over levels, rows, columns and objects."""
    found = []
    for level, (stride, (height, width)) in enumerate(zip(STRIDES, SHAPES, strict=True)):
        least = 0 if level == 0 else reach[0] * stride
        most = math.inf if level == len(STRIDES) - 1 else reach[1] * stride
        for y in range(0, height * stride, stride):
            for x in range(0, width * stride, stride):
                best, best_area = -1, math.inf
                for number, (x1, y1, x2, y2) in enumerate(boxes):
                    sides = (x - x1, y - y1, x2 - x, y2 - y)
                    near = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < radius * stride
                    area = (x2 - x1) * (y2 - y1)
                    if min(sides) > 0 and near and least < max(sides) < most and area < best_area:
                        best, best_area = number, area
                found.append(best)
    return found


@pytest.mark.parametrize(('radius', 'reach'), [(1.5, (4.0, 8.0)), (0.8, (2.0, 4.0)), (math.inf, (1.0, 2.0))])
def test_assignment_is_that_of_a_slow_loop(radius: float, reach: tuple[float, float]) -> None:
    """The second image has fewer objects, and the third has none."""
    corner, side = torch.rand(12, 2) * 100, torch.rand(12, 2) * 90 + 6
    boxes = [tuple(box) for box in torch.cat([corner, corner + side], dim=1).tolist()]
    images = [boxes, boxes[:3], []]
    anchors = torch.cat(ANCHORS.grid(SHAPES))
    assigner = FCOSAssigner(center_radius=radius, reach=reach)
    found = assigner.assign_batch(anchors, truth_of(*images))
    for i, objects in enumerate(images):
        expected = slow(objects, radius, reach)
        assert torch.where(found.label[i] == 1, found.gt_index[i], -1).tolist() == expected
        own = torch.tensor(objects).view(-1, 4)
        alone = assigner.assign(anchors, own, torch.zeros(len(objects), dtype=torch.int64))
        assert torch.where(alone.label == 1, alone.gt_index, -1).tolist() == expected
    assert (found.label[0] == 1).sum() > 5 and (found.label[2] == 0).all()


def test_assignment_by_hand() -> None:
    """Cells of stride 8 and an object from (4, 4) to (36, 28), whose centre is (20, 16).

    x = 16 and 24 are within 12 pixels of 20, x = 8 is 12 away; y = 8, 16 and 24 are within 12 of 16. No distance
    reaches 64, so that the first level takes it; on the second level a distance of more than 64 is needed.
    """
    anchors = torch.cat(ANCHORS.grid(SHAPES))
    found = FCOSAssigner().assign_batch(anchors, truth_of([(4.0, 4.0, 36.0, 28.0)]))
    cells = [(1, 2), (1, 3), (2, 2), (2, 3), (3, 2), (3, 3)]  # row, column
    assert found.label[0].nonzero().squeeze(1).tolist() == [row * 20 + column for row, column in cells]


def random_boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2) * 50
    return torch.cat([corner, corner + torch.rand(count, 2) * 40 + 4], dim=1)


def test_distances_are_torchvisions() -> None:
    boxes, targets, coder = random_boxes(9), random_boxes(9), BoxLinearCoder(normalize_by_size=True)
    distances = DistanceCoder().encode(boxes, targets)
    torch.testing.assert_close(distances, coder.encode(boxes, targets))
    torch.testing.assert_close(DistanceCoder().decode(boxes, distances), targets)
    torch.testing.assert_close(DistanceCoder().decode(boxes, distances + 1), coder.decode(distances + 1, boxes))


def test_distances_by_hand() -> None:
    """From (16, 24), with a size of 8, to (8, 20, 40, 32): 8 left, 4 up, 24 right, 8 down."""
    box, target = torch.tensor([12.0, 20.0, 20.0, 28.0]), torch.tensor([8.0, 20.0, 40.0, 32.0])
    assert DistanceCoder().encode(box, target).tolist() == [1.0, 0.5, 3.0, 1.0]
