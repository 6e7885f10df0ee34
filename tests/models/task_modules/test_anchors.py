import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchorGenerator
from torchvision.models.detection.image_list import ImageList

from frdet.errors import ConfigError
from frdet.models.task_modules import AnchorGenerator, DeltaXYWHCoder

SIZES = ((32,), (64,), (128,), (256,), (512,))


def test_one_cell_by_hand() -> None:
    (anchors,) = AnchorGenerator(strides=(16,), sizes=((32,),), ratios=(0.25, 1.0, 4.0)).grid([(1, 1)])
    expected = [
        [-32.0, -8.0, 32.0, 8.0],  # w = sqrt(32^2 / 0.25) = 64, h = 0.25 * 64 = 16
        [-16.0, -16.0, 16.0, 16.0],
        [-8.0, -32.0, 8.0, 32.0],  # w = sqrt(32^2 / 4) = 16, h = 4 * 16 = 64
    ]
    assert anchors.tolist() == expected
    assert anchors.dtype == torch.float32


def test_order_is_row_column_size_ratio() -> None:
    generator = AnchorGenerator(strides=(8,), sizes=((4, 8),), ratios=(1.0, 4.0))
    assert generator.num_anchors == 4
    (anchors,) = generator.grid([(2, 3)])
    assert anchors.shape == (2 * 3 * 4, 4)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    sides = anchors[:, 2:] - anchors[:, :2]
    assert centres[::4].tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8]]
    assert sides[:4].tolist() == [[4, 4], [2, 8], [8, 8], [4, 16]]  # s / sqrt(r), s * sqrt(r)
    assert sides[4:8].tolist() == sides[:4].tolist()


@pytest.mark.parametrize(('offset', 'first', 'last'), [(0.0, [0, 0], [32, 16]), (0.5, [8, 8], [40, 24])])
def test_offset_moves_the_centres(offset: float, first: list[float], last: list[float]) -> None:
    (anchors,) = AnchorGenerator(strides=(16,), sizes=((32,),), ratios=(1.0,), offset=offset).grid([(2, 3)])
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres[0].tolist() == first
    assert centres[-1].tolist() == last


def test_rounding_around_the_centre() -> None:
    """sqrt(32^2 / 0.5) = 45.25 wide and 22.63 high: half of them, 22.63 and 11.31, become 23 and 11."""
    (anchors,) = AnchorGenerator(strides=(4,), sizes=((32,),), ratios=(0.5,), round_to_pixels=True).grid([(1, 2)])
    assert anchors.tolist() == [[-23, -11, 23, 11], [-19, -11, 27, 11]]


@pytest.mark.parametrize(
    ('size', 'shapes'),
    [
        ((128, 192), [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]),
        ((96, 160), [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]),  # p6 is rounded up
    ],
)
def test_is_torchvisions(size: tuple[int, int], shapes: list[tuple[int, int]]) -> None:
    ratios = (0.5, 1.0, 2.0)
    generator = AnchorGenerator(
        strides=(4, 8, 16, 32, 64), sizes=SIZES, ratios=ratios, round_to_pixels=True, strides_from_maps=True
    )
    reference = TorchvisionAnchorGenerator(SIZES, (ratios,) * 5)
    images = ImageList(torch.zeros(1, 3, *size), [size])
    (expected,) = reference(images, [torch.zeros(1, 1, *shape) for shape in shapes])
    levels = generator.grid(shapes)
    assert [len(level) for level in levels] == [h * w * 3 for h, w in shapes]
    torch.testing.assert_close(torch.cat(levels), expected)


def test_strides_from_maps_by_hand() -> None:
    """An input of 800x1216 has a p6 of 13x19 cells: 800 // 13 = 61 and 1216 // 19 = 64 pixels apart."""
    arguments = dict(strides=(4, 64), sizes=((32,), (512,)), ratios=(1.0,))
    last = []
    for strides_from_maps in (False, True):
        levels = AnchorGenerator(strides_from_maps=strides_from_maps, **arguments).grid([(200, 304), (13, 19)])
        assert levels[0][-1].tolist() == [1212 - 16, 796 - 16, 1212 + 16, 796 + 16]
        last.append(levels[1][-1].tolist())
    assert last[0] == [18 * 64 - 256, 12 * 64 - 256, 18 * 64 + 256, 12 * 64 + 256]
    assert last[1] == [18 * 64 - 256, 12 * 61 - 256, 18 * 64 + 256, 12 * 61 + 256]


def test_unrounded_area_and_ratio() -> None:
    generator = AnchorGenerator(strides=(4, 8), sizes=((32,), (64,)), ratios=(0.5, 1.0, 2.0))
    for size, cell in zip((32, 64), generator.cell_anchors, strict=True):
        for ratio, (x1, y1, x2, y2) in zip((0.5, 1.0, 2.0), cell.tolist(), strict=True):
            assert (x1, y1) == (-x2, -y2)
            assert (x2 - x1) * (y2 - y1) == pytest.approx(size**2)
            assert (y2 - y1) / (x2 - x1) == pytest.approx(ratio)
            assert x2 - x1 == pytest.approx(size / math.sqrt(ratio))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(strides=(4, 8), sizes=((32,),)), '2 strides but 1 sizes'),
        (dict(strides=(4, 8), sizes=((32,), (64, 128))), r'levels have \[1, 2\] sizes'),
    ],
)
def test_levels_that_disagree(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnchorGenerator(ratios=(1.0,), **arguments)


def test_feature_maps_and_strides_must_agree() -> None:
    with pytest.raises(ConfigError, match='2 strides for 1 feature maps'):
        AnchorGenerator(strides=(4, 8), sizes=((32,), (64,)), ratios=(1.0,)).grid([(2, 2)])


RCNN_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2) * 100
    return torch.cat([corner, corner + torch.rand(count, 2) * 80 + 1], dim=1)


def test_encode_by_hand() -> None:
    # Box: centre (20, 30), 40 wide, 20 high. Target: centre (30, 25), 80 wide, 10 high.
    box, target = torch.tensor([0.0, 20.0, 40.0, 40.0]), torch.tensor([-10.0, 20.0, 70.0, 30.0])
    # (30 - 20) / 40, (25 - 30) / 20, log(80 / 40), log(10 / 20)
    expected = torch.tensor([0.25, -0.25, math.log(2), -math.log(2)])
    torch.testing.assert_close(DeltaXYWHCoder().encode(box, target), expected)
    weighted = DeltaXYWHCoder(weights=RCNN_WEIGHTS).encode(box, target)
    torch.testing.assert_close(weighted, expected * torch.tensor(RCNN_WEIGHTS))


def test_decode_by_hand() -> None:
    box = torch.tensor([0.0, 20.0, 40.0, 40.0])
    deltas = torch.tensor([0.25, -0.25, math.log(2), -math.log(2)])
    torch.testing.assert_close(DeltaXYWHCoder().decode(box, deltas), torch.tensor([-10.0, 20.0, 70.0, 30.0]))


@pytest.mark.parametrize('weights', [(1.0, 1.0, 1.0, 1.0), RCNN_WEIGHTS])
def test_the_coder_is_torchvisions(weights: tuple[float, ...]) -> None:
    boxes, targets = random_boxes(50), random_boxes(50)
    coder, reference = DeltaXYWHCoder(weights=weights), BoxCoder(weights)
    torch.testing.assert_close(
        coder.encode(boxes, targets), reference.encode_single(targets, boxes), atol=1e-5, rtol=1e-5
    )
    deltas = torch.randn(50, 7, 4) * 8  # dw and dh reach the clamp
    expected = reference.decode_single(deltas.flatten(1), boxes).view(50, 7, 4)
    torch.testing.assert_close(coder.decode(boxes[:, None], deltas), expected, atol=1e-2, rtol=1e-5)


def test_round_trip() -> None:
    boxes, targets = random_boxes(200), random_boxes(200)
    coder = DeltaXYWHCoder(weights=RCNN_WEIGHTS)
    torch.testing.assert_close(coder.decode(boxes, coder.encode(boxes, targets)), targets, atol=1e-3, rtol=0)


def test_sides_grow_at_most_by_the_ratio() -> None:
    box = torch.tensor([0.0, 0.0, 16.0, 16.0])
    deltas = torch.tensor([0.0, 0.0, 1e6, 50.0])
    # 16 * 1000 / 16 = 1000 wide and high around (8, 8).
    torch.testing.assert_close(
        DeltaXYWHCoder().decode(box, deltas), torch.tensor([-492.0, -492.0, 508.0, 508.0]), atol=1e-2, rtol=0
    )
    # 16 * 2 = 32.
    torch.testing.assert_close(
        DeltaXYWHCoder(max_ratio=2.0).decode(box, deltas), torch.tensor([-8.0, -8.0, 24.0, 24.0])
    )


def test_shrinking_is_limited_only_if_asked() -> None:
    """Of 1000 pixels, a log ratio of -5 leaves 1000 * exp(-5) = 6.74; the limit is a 62.5th, 16 pixels."""
    box, deltas = torch.tensor([0.0, 0.0, 1000.0, 1000.0]), torch.tensor([0.0, 0.0, -5.0, -4.0])
    free = DeltaXYWHCoder().decode(box, deltas)
    limited = DeltaXYWHCoder(limit_shrinking=True).decode(box, deltas)
    assert (free[2:] - free[:2]).tolist() == pytest.approx([1000 * math.exp(-5), 1000 * math.exp(-4)], abs=1e-3)
    assert (limited[2:] - limited[:2]).tolist() == pytest.approx([16.0, 1000 * math.exp(-4)], abs=1e-3)


def test_clamp_is_on_the_weighted_delta() -> None:
    """A delta of 10 with weight 5 is a log ratio of 2, below log(1000 / 16) = 4.1: not clamped."""
    decoded = DeltaXYWHCoder(weights=RCNN_WEIGHTS).decode(
        torch.tensor([-0.5, -0.5, 0.5, 0.5]), torch.tensor([0.0, 0.0, 10.0, 10.0])
    )
    torch.testing.assert_close(decoded[2:] - decoded[:2], torch.full((2,), math.exp(2)))


def test_leading_shapes_broadcast() -> None:
    coder = DeltaXYWHCoder()
    boxes, deltas = random_boxes(6), torch.randn(2, 6, 4) * 0.1
    decoded = coder.decode(boxes, deltas)
    assert decoded.shape == (2, 6, 4)
    torch.testing.assert_close(decoded[1], coder.decode(boxes, deltas[1]))
    assert coder.decode(boxes[:0], deltas[0, :0]).shape == (0, 4)
