"""Pasting against detectron2's rule, pixel by pixel in a loop, and against torchvision's own function."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from frdet.structures import masks as module
from frdet.structures import paste_masks

SIZE = (37, 45)  # height, width
BOXES = torch.tensor(
    [
        [3.2, 5.7, 30.1, 20.4],
        [-6.5, 10.0, 9.3, 60.2],  # beyond the left and the lower border
        [40.0, -3.0, 52.5, 4.5],
        [12.3, 12.1, 12.8, 12.6],  # within a pixel
        [20.0, 2.0, 24.0, 34.0],  # on whole pixels
        [0.0, 0.0, 45.0, 37.0],
        [-30.0, 3.0, -20.0, 9.0],  # outside
    ]
)


def some_masks(count: int = len(BOXES), cells: int = 7) -> Tensor:
    return torch.rand(count, cells, cells, generator=torch.Generator().manual_seed(3))


def slow_pixel(mask: Tensor, box: list[float], x: int, y: int) -> float:
    """``grid_sample`` of one pixel: bilinear between the centres of the cells, and zeros around them."""
    cells, total = len(mask), 0.0
    column = (x + 0.5 - box[0]) / (box[2] - box[0]) * cells - 0.5
    row = (y + 0.5 - box[1]) / (box[3] - box[1]) * cells - 0.5
    for j in (math.floor(row), math.floor(row) + 1):
        for i in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < cells and 0 <= j < cells:
                total += mask[j, i].item() * (1 - abs(row - j)) * (1 - abs(column - i))
    return total


@pytest.fixture(params=[False, True], ids=['near boxes', 'whole images'])
def whole(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """As a GPU does it, too: three masks at a time."""
    if request.param:
        monkeypatch.setattr(module, 'CHUNK', 3 * SIZE[0] * SIZE[1])
        monkeypatch.setattr(module, '_near_boxes', module._whole_images)
    return request.param


@pytest.mark.parametrize('threshold', [0.5, 0.05])
def test_detectron2s_rule(whole: bool, threshold: float) -> None:
    """On the CPU detectron2 computes the pixels up to one beside the box, which matters below a threshold of a half."""
    masks = some_masks()
    found = paste_masks(masks, BOXES, SIZE, threshold=threshold)
    assert found.shape == (len(BOXES), *SIZE) and found.dtype == torch.bool
    for k, box in enumerate(BOXES.tolist()):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                near = math.floor(box[0]) - 1 <= x <= math.ceil(box[2]) and math.floor(box[1]) - 1 <= y
                near = near and y <= math.ceil(box[3])
                expected = slow_pixel(masks[k], box, x, y) >= threshold
                assert found[k, y, x] == ((near or whole) and expected), (k, y, x)
    assert found[0].any() and not found[-1].any()


@pytest.mark.parametrize('cells', [7, 28])
def test_torchvisions_rule(whole: bool, cells: int) -> None:
    """A box outside of the image, where torchvision fails, has no pixel."""
    masks = some_masks(cells=cells)
    expected = paste_masks_in_image(masks[:-1, None], BOXES[:-1], SIZE)[:, 0] > 0.5
    found = paste_masks(masks, BOXES, SIZE, rule='torchvision')
    assert torch.equal(found[:-1], expected) and expected.flatten(1).any(dim=1)[:3].all()
    assert not found[-1].any() and not torch.equal(found, paste_masks(masks, BOXES, SIZE))


def test_many_boxes_by_torchvisions_rule() -> None:
    corners = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 40 - 5
    sides = torch.rand(200, 2, generator=torch.Generator().manual_seed(2)) * 30 + 0.01
    boxes = torch.cat([corners, corners + sides], dim=1)
    masks = some_masks(200, 14)
    expected = paste_masks_in_image(masks[:, None], boxes, SIZE)[:, 0] > 0.5
    assert torch.equal(paste_masks(masks, boxes, SIZE, rule='torchvision'), expected)


def test_the_threshold_itself() -> None:
    """A half belongs to the object in detectron2, not in torchvision. Far from the border nothing is interpolated."""
    masks, boxes = torch.full((1, 4, 4), 0.5), torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    assert paste_masks(masks, boxes, (8, 8))[0, 1:7, 1:7].all()
    assert not paste_masks(masks, boxes, (8, 8), rule='torchvision').any()


@pytest.mark.parametrize('rule', ['detectron2', 'torchvision'])
def test_no_masks(rule: str) -> None:
    found = paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6), rule=rule)
    assert found.shape == (0, 5, 6) and found.dtype == torch.bool


def test_half_precision() -> None:
    """Masks of bfloat16 are interpolated in float32."""
    masks = some_masks().bfloat16()
    assert torch.equal(paste_masks(masks, BOXES, SIZE), paste_masks(masks.float(), BOXES, SIZE))
