"""The operators without the extension, through the interface that both share."""

import math

import pytest
import torch
import torchvision
from torch import Tensor

from frdet import ops
from frdet.ops import loading


@pytest.fixture(autouse=True)
def _without_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, 'is_native', lambda tensor: False)


def random_boxes(*shape: int, size: float = 100.0) -> Tensor:
    corner = torch.rand(*shape, 2) * size
    return torch.cat([corner, corner + torch.rand(*shape, 2) * size / 2 + 1], dim=-1)


def test_nms_by_hand() -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 6.0], [50.0, 0.0, 60.0, 10.0]]
    )
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    # IoU with the first: 0.5, not above the threshold, and 0.6; the third also has 5 / 6 with the second.
    assert ops.nms(boxes, scores, 0.5).tolist() == [3, 0, 1]
    assert ops.nms(boxes, scores, 0.49).tolist() == [3, 0]


def test_batched_nms_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).expand(4, -1)
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert ops.batched_nms(boxes, scores, torch.tensor([0, 0, 7, 7]), 0.5).tolist() == [3, 1]


@pytest.mark.parametrize('count', [0, 60, 1500])
def test_batched_nms_mask_marks_what_batched_nms_keeps(count: int) -> None:
    boxes, scores, groups = random_boxes(count), torch.randn(count), torch.randint(4, (count,))
    mask = ops.batched_nms_mask(boxes, scores, groups, 0.5)
    expected = {i for g in range(4) for i in _nms_in_group(boxes, scores, groups, g)}
    assert set(mask.nonzero().squeeze(1).tolist()) == expected


def _nms_in_group(boxes: Tensor, scores: Tensor, groups: Tensor, group: int) -> list[int]:
    members = (groups == group).nonzero().squeeze(1)
    return members[torchvision.ops.nms(boxes[members], scores[members], 0.5)].tolist()


def test_absent_boxes_are_not_kept_and_suppress_nothing() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).expand(3, -1)
    group = torch.zeros(3).long()
    scores = torch.tensor([-math.inf, -5.0, -6.0])
    assert ops.batched_nms_mask(boxes, scores, group, 0.5).tolist() == [False, True, False]
    assert ops.batched_nms_mask(boxes, torch.full((3,), -math.inf), group, 0.5).tolist() == [False] * 3


def rois_of(boxes: Tensor, images: int) -> Tensor:
    return torch.cat([torch.arange(len(boxes))[:, None] % images, boxes], dim=1)


@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_by_hand(aligned: bool) -> None:
    """A map whose value is its column: the average over a bin is the column of the bin's middle."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    pooled = ops.roi_align(ramp, torch.tensor([[0.0, 2.0, 2.0, 6.0, 6.0]]), (1, 2), 1.0, 2, aligned)
    middles = torch.tensor([3.0, 5.0]) - (0.5 if aligned else 0.0)
    torch.testing.assert_close(pooled, middles.view(1, 1, 1, 2))


TORCHVISION = dict(sampling_ratio=2, aligned=False, eps_inside=0.0, eps_outside=1e-6)


def pyramid(images: int = 2) -> list[Tensor]:
    return [torch.randn(images, 3, 512 // s, 512 // s, requires_grad=True) for s in (4, 8, 16, 32)]


def test_multiscale_roi_align_is_torchvisions() -> None:
    maps = pyramid()
    boxes = random_boxes(40, size=340.0)
    boxes[:8] = random_boxes(8, size=30.0)
    reference = torchvision.ops.MultiScaleRoIAlign(['0', '1', '2', '3'], output_size=5, sampling_ratio=2)
    per_image = [boxes[0::2], boxes[1::2]]
    expected = reference({str(i): m for i, m in enumerate(maps)}, per_image, [(512, 512)] * 2)
    rois = torch.cat([torch.cat([torch.full((20, 1), float(i)), b], dim=1) for i, b in enumerate(per_image)])
    found = ops.multiscale_roi_align(maps, rois, 5, [1 / 4, 1 / 8, 1 / 16, 1 / 32], **TORCHVISION)
    torch.testing.assert_close(found, expected)
    factor = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad((found * factor).sum(), maps),
        torch.autograd.grad((expected * factor).sum(), maps),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ('width', 'height', 'level'),
    [
        (224, 224, 2),  # floor(4 + log2(1)) = 4, the third map
        (223.9, 223.9, 1),
        (448, 448, 3),
        (447.9, 447.9, 2),
        (112, 112, 1),
        (111.9, 111.9, 0),
        (448, 112, 2),  # sqrt(448 * 112) = 224
        (4, 4, 0),  # floor(4 + log2(4 / 224)) = -2, clamped to 2
        (2000, 2000, 3),
        (0, 50, 0),
    ],
)
def test_level_of_an_roi(width: float, height: float, level: int) -> None:
    """Each map holds its own number, so what is pooled tells where it came from."""
    maps = [torch.full((1, 1, 2048 // s, 2048 // s), float(i)) for i, s in enumerate((4, 8, 16, 32))]
    roi = torch.tensor([[0.0, 10.0, 10.0, 10.0 + width, 10.0 + height]])
    pooled = ops.multiscale_roi_align(maps, roi, 2, [1 / 4, 1 / 8, 1 / 16, 1 / 32], 2)
    assert pooled.unique().tolist() == [level]


def test_multiscale_roi_align_of_one_level_and_of_nothing() -> None:
    maps, rois = pyramid(), rois_of(random_boxes(6), 2)
    torch.testing.assert_close(
        ops.multiscale_roi_align(maps[:1], rois, (3, 4), [0.25]),
        torchvision.ops.roi_align(maps[0], rois, (3, 4), 0.25, -1, True),
    )
    assert ops.multiscale_roi_align(maps, rois[:0], 7, [1 / 4, 1 / 8, 1 / 16, 1 / 32]).shape == (0, 3, 7, 7)


def slow_max_iou(boxes: Tensor, gt: Tensor, least: float) -> tuple[list, list, list, list]:
    """One image, in loops over torchvision's IoU."""
    table = torchvision.ops.box_iou(gt, boxes).tolist()
    best = [max((row[n] for row in table), default=0.0) for n in range(len(boxes))]
    index = [next((g for g, row in enumerate(table) if row[n] == best[n] > 0), 0) for n in range(len(boxes))]
    gt_iou = [max(row, default=0.0) for row in table]
    best_of = [-1] * len(boxes)
    for g, row in enumerate(table):
        for n, value in enumerate(row):
            if value == gt_iou[g] > 0 and value >= least:
                best_of[n] = g
    return best, index, gt_iou, best_of


@pytest.mark.parametrize('num_gt', [0, 1, 6])
@pytest.mark.parametrize('least', [0.0, 0.3])
def test_max_iou_is_that_of_a_slow_loop(num_gt: int, least: float) -> None:
    boxes, gt = random_boxes(40, size=50.0), random_boxes(num_gt, size=50.0)
    boxes = torch.cat([boxes, gt, gt])
    found = ops.max_iou(boxes, gt, min_gt_iou=least)
    best, index, gt_iou, best_of = slow_max_iou(boxes, gt, least)
    torch.testing.assert_close(found.iou, torch.tensor(best))
    assert found.index.tolist() == index
    torch.testing.assert_close(found.gt_iou, torch.tensor(gt_iou))
    assert found.best_of.tolist() == best_of


@pytest.mark.parametrize('shared', [True, False])
def test_max_iou_of_a_padded_batch(shared: bool) -> None:
    counts = [3, 0, 5]
    gt, valid = random_boxes(3, 5, size=50.0), torch.arange(5) < torch.tensor(counts)[:, None]
    boxes = random_boxes(30, size=50.0) if shared else random_boxes(3, 30, size=50.0)
    found = ops.max_iou(boxes, gt, valid)
    for i, count in enumerate(counts):
        alone = ops.max_iou(boxes if shared else boxes[i], gt[i, :count])
        assert torch.equal(found.iou[i], alone.iou)
        assert torch.equal(found.index[i], alone.index)
        assert torch.equal(found.best_of[i], alone.best_of)
        assert torch.equal(found.gt_iou[i, :count], alone.gt_iou)
        assert found.gt_iou[i, count:].eq(0).all()


def test_max_iou_without_boxes() -> None:
    found = ops.max_iou(torch.zeros(0, 4), random_boxes(3))
    assert [tuple(x.shape) for x in found] == [(0,), (0,), (3,), (0,)]
    assert found.gt_iou.tolist() == [0.0] * 3
