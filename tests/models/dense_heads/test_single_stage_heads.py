"""The rules of RetinaHead and FCOSHead, by hand. test_single_stage.py compares both with torchvision's."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from frdet.errors import ConfigError
from frdet.models.dense_heads.fcos_head import FCOSHead, centerness_of
from frdet.models.dense_heads.retina_head import RetinaHead
from frdet.structures import GroundTruth

COMMON: dict[str, Any] = dict(
    num_classes=3, in_channels=4, feat_channels=4, stacked_convs=1, loss_cls=dict(type='FocalLoss'), normalizer='batch',
    score_thr=0.05, pre_nms=50, clip_before_nms=True, nms_iou_thr=0.5, max_per_image=20,
)  # fmt: skip


def retina(**changes: Any) -> RetinaHead:
    return RetinaHead(**{
        **COMMON,
        'anchor_generator': dict(type='AnchorGenerator', strides=(8, 16), sizes=((16, 20), (32, 40)), ratios=(1.0,)),
        'box_coder': dict(type='DeltaXYWHCoder'),
        'assigner': dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, match_low_quality=True),
        'loss_bbox': dict(type='L1Loss'), **changes,
    })  # fmt: skip


def fcos(**changes: Any) -> FCOSHead:
    return FCOSHead(**{
        **COMMON,
        'anchor_generator': dict(type='AnchorGenerator', strides=(8, 16), sizes=((8,), (16,)), ratios=(1.0,)),
        'box_coder': dict(type='DistanceCoder'), 'assigner': dict(type='FCOSAssigner'),
        'loss_bbox': dict(type='GIoULoss'), 'loss_centerness': dict(type='BinaryCrossEntropyLoss'), **changes,
    })  # fmt: skip


def maps() -> tuple[Tensor, Tensor]:
    """Of an image of 48 x 64 pixels."""
    return torch.randn(1, 4, 6, 8), torch.randn(1, 4, 3, 4)


def truth(side: float) -> GroundTruth:
    """One object of the class 1, a square in the corner of the image."""
    return GroundTruth(torch.tensor([[[0.0, 0.0, side, side]]]), torch.tensor([[1]]), torch.tensor([[True]]))


SIZES = torch.tensor([[48.0, 64.0]])


@pytest.mark.parametrize('make', [retina, fcos])
def test_classes_begin_with_a_probability_of_a_hundredth(make: Callable[[], Any]) -> None:
    """log(0.01 / 0.99) is -4.595; the other weights have a standard deviation of 0.01."""
    head = make()
    last = head.retina_cls if isinstance(head, RetinaHead) else head.conv_cls
    assert last.bias.tolist() == pytest.approx([-4.59512] * len(last.bias))
    for layer in (*head.cls_convs, *head.reg_convs):
        assert layer.conv.weight.std().item() == pytest.approx(0.01, rel=0.3) and layer.conv.bias.eq(0).all()


def test_predictions_have_the_order_of_the_anchors() -> None:
    """(H, W, A), and of an anchor its K classes: channel a * K + k of a cell."""
    head = retina(stacked_convs=0)
    features = maps()
    logits, deltas = head(features)
    assert [tuple(x.shape) for x in logits] == [(1, 6 * 8 * 2, 3), (1, 3 * 4 * 2, 3)]
    assert [tuple(x.shape) for x in deltas] == [(1, 6 * 8 * 2, 4), (1, 3 * 4 * 2, 4)]
    raw, moved = head.retina_cls(features[0]), head.retina_reg(features[0])
    for row, column, anchor in ((0, 0, 1), (2, 5, 0), (5, 7, 1)):
        place = (row * 8 + column) * 2 + anchor
        torch.testing.assert_close(logits[0][0, place], raw[0, 3 * anchor : 3 * anchor + 3, row, column])
        torch.testing.assert_close(deltas[0][0, place], moved[0, 4 * anchor : 4 * anchor + 4, row, column])


@pytest.mark.parametrize(
    ('normalizer', 'expected'),
    [('batch', 5.0), ('batch_each', 5.0 + 1 + 1), ('image', [[15.0], [3.0], [3.0]]), ('ema', 0.9 * 100 + 0.1 * 5)],
)
def test_divisors_by_hand(normalizer: str, expected: Any) -> None:
    """Three images with 5, 0 and 0 positive anchors; 'image' takes the mean of three."""
    positive = torch.arange(9) < torch.tensor([5, 0, 0])[:, None]
    found = retina(normalizer=normalizer).avg_factor(positive)
    torch.testing.assert_close(found.float(), torch.tensor(expected))


def test_the_moving_average_by_hand() -> None:
    """It counts at least 1, moves in training only, and is part of a checkpoint, which may lack it."""
    head = retina(normalizer='ema', ema_start=300.0)
    none = torch.zeros(2, 9, dtype=torch.bool)
    assert head.avg_factor(none).item() == pytest.approx(0.9 * 300 + 0.1)
    assert head.eval().avg_factor(~none).item() == pytest.approx(270.1)
    assert head.train().avg_factor(~none).item() == pytest.approx(0.9 * 270.1 + 0.1 * 18)
    assert head.state_dict()['loss_normalizer'].item() == pytest.approx(0.9 * 270.1 + 0.1 * 18)


def test_losses_of_retina_head_by_hand() -> None:
    """Zero weights: all 120 anchors have the logits -4.595 and the deltas 0.

    The anchor of 16 pixels is the object and positive. Ignored are those with an IoU of 0.4 to 0.5: none of 16 pixels,
    whose nearest one, 8 pixels away, has 1/3; of 20 pixels, from -2 to 18 around the same cell, IoU is 256 / 400: also
    positive. With p = 0.01 the loss of an absent class is 0.75 p^2 * -log(1 - p), of a present one
    0.25 (1 - p)^2 * -log(p).
    """
    head = retina()
    for layer in (head.retina_cls, head.retina_reg):
        torch.nn.init.zeros_(layer.weight)
    losses = head.loss(maps(), truth(16.0), SIZES)
    label = head.assigner.assign_batch(torch.cat(head.anchors(maps())), truth(16.0)).label[0]
    assert label.eq(1).nonzero().squeeze(1).tolist() == [(8 + 1) * 2, (8 + 1) * 2 + 1] and label.ne(-1).sum() == 120
    absent, present = 0.75 * 0.01**2 * -math.log(0.99), 0.25 * 0.99**2 * -math.log(0.01)
    assert losses['loss_cls'].item() == pytest.approx((358 * absent + 2 * present) / 2, rel=1e-4)
    assert losses['loss_bbox'].item() == pytest.approx(2 * math.log(20 / 16) / 2, rel=1e-4)  # width and height
    assert losses['num_pos'].item() == 2


@pytest.mark.parametrize('clip_before_nms', [True, False])
def test_clipping_before_or_after_nms(clip_before_nms: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two boxes of the class 1: from -40 and from 0 to 20, IoU 1/3, and equal after clipping. One box lies outside."""
    head = retina(clip_before_nms=clip_before_nms, nms_iou_thr=0.4).eval()
    boxes = torch.tensor([[-40.0, 0.0, 20.0, 16.0], [0.0, 0.0, 20.0, 16.0], [-40.0, -40.0, -4.0, -4.0]])
    anchors, features = head.anchors(maps()), maps()
    logits, deltas = [torch.full((1, len(a), 3), -9.0) for a in anchors], [torch.zeros(1, len(a), 4) for a in anchors]
    for place, box in enumerate(boxes):
        logits[0][0, place, 1] = 2.0 - place
        deltas[0][0, place] = head.box_coder.encode(anchors[0][place], box)
    monkeypatch.setattr(head, 'forward', lambda features: (logits, deltas))
    found = head.predict(features, SIZES)
    there = found.labels[0] >= 0
    scores = torch.tensor([2.0] if clip_before_nms else [2.0, 1.0]).sigmoid()
    torch.testing.assert_close(found.scores[0][there], scores)
    torch.testing.assert_close(found.boxes[0][there], boxes[1].expand(len(scores), 4))
    assert found.labels[0][there].eq(1).all() and found.boxes[0][~there].eq(0).all()


def test_one_box_may_have_several_classes() -> None:
    """The best pairs of anchor and class are chosen, not the best anchors."""
    head = retina(pre_nms=3)
    for layer in (head.retina_cls, head.retina_reg):
        torch.nn.init.zeros_(layer.weight)
    with torch.no_grad():
        head.retina_cls.bias.copy_(torch.tensor([1.0, 2.0, -9.0, -9.0, -9.0, -9.0]))
    found = head.predict((torch.zeros(1, 4, 1, 1), torch.zeros(1, 4, 1, 1)), torch.tensor([[99.0, 99.0]]))
    there = found.labels[0] >= 0
    assert found.labels[0][there].tolist() == [1, 1, 0, 0]  # of both levels
    torch.testing.assert_close(found.scores[0][there], torch.tensor([2.0, 2.0, 1.0, 1.0]).sigmoid())


def test_centerness_by_hand() -> None:
    """sqrt(1/3 * 2/4), 1 in the middle, and 0 for a cell that is not positive, here outside."""
    distances = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 2.0, 5.0, 2.0], [-1.0, 2.0, 3.0, 4.0]])
    found = centerness_of(distances, torch.tensor([True, True, False]))
    assert found.tolist() == pytest.approx([math.sqrt(1 / 6), 1.0, 0.0])


@pytest.mark.parametrize('by_centre', [False, True])
def test_losses_of_fcos_head_by_hand(by_centre: bool) -> None:
    """The object of 32 pixels is that of the cells at 8, 16 and 24 pixels, x and y, less than 12 from its centre.

    Zero weights and bias 1: all distances are 8 pixels. A box of 16 pixels inside one of 32 has GIoU = IoU = 1/4.
    At the middle the distances are 16, 16, 16, 16, with centerness 1; at a side of the nine 8 and 24, with
    sqrt(1/3); at a corner 1/3. All centerness logits are 0, so that its loss is log 2 for any target.
    """
    head = fcos(weigh_by_centerness=by_centre)
    for layer in (head.conv_cls, head.conv_reg, head.conv_centerness):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.ones_(head.conv_reg.bias)
    losses = head.loss(maps(), truth(32.0), SIZES)
    absent, present = 0.75 * 0.01**2 * -math.log(0.99), 0.25 * 0.99**2 * -math.log(0.01)
    assert losses['num_pos'].item() == 9
    assert losses['loss_cls'].item() == pytest.approx((171 * absent + 9 * present) / 9, rel=1e-4)
    assert losses['loss_centerness'].item() == pytest.approx(math.log(2), rel=1e-4)
    # Of the cells beside the middle the box ends at the object's side, but stays inside.
    assert losses['loss_bbox'].item() == pytest.approx(0.75, rel=1e-4)


def test_boxes_weigh_as_much_as_their_cells_are_central() -> None:
    """Distances of 16 pixels: in the middle the box is the object. Elsewhere it is half outside, in x, y or both.

    Moved by 8 of 32 pixels the box has IoU 24 * 32 / (2 * 1024 - 768) = 0.6 and the hull 40 * 32, which both fill:
    GIoU 0.6. Moved in both: 576 / 1472, and the hull 1600 has 128 empty: GIoU 0.39130 - 0.08.
    """
    loss = {}
    for by_centre in (False, True):
        head = fcos(weigh_by_centerness=by_centre)
        torch.nn.init.zeros_(head.conv_reg.weight)
        torch.nn.init.constant_(head.conv_reg.bias, 2.0)
        losses = head.loss(maps(), truth(32.0), SIZES)
        loss[by_centre] = losses['loss_bbox'].item()
    side, corner = 1 - 0.6, 1 - (576 / 1472 - 0.08)
    assert loss[False] == pytest.approx((4 * side + 4 * corner) / 9, rel=1e-4)
    central = 1 + 4 * math.sqrt(1 / 3) + 4 / 3
    assert loss[True] == pytest.approx((4 * math.sqrt(1 / 3) * side + 4 / 3 * corner) / central, rel=1e-4)


def test_scores_of_fcos_are_the_root_of_class_times_centerness() -> None:
    head = fcos(score_thr=0.2).eval()
    for layer in (head.conv_cls, head.conv_reg, head.conv_centerness):
        torch.nn.init.zeros_(layer.weight)
    with torch.no_grad():
        head.conv_cls.bias.copy_(torch.tensor([2.0, -9.0, -9.0]))
        head.conv_reg.bias.copy_(torch.tensor([0.25, 0.5, 0.75, -3.0]))  # a distance below 0 is 0
        head.conv_reg.bias[3] = 1.0
        head.conv_centerness.bias.fill_(-1.0)
    found = head.predict((torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 1, 1)), torch.tensor([[99.0, 99.0]]))
    score = math.sqrt(1 / (1 + math.exp(-2)) / (1 + math.exp(1)))
    assert found.scores[0, 0].item() == pytest.approx(score)
    box = [16 - 2.0, 16 - 4.0, 16 + 6.0, 16 + 8.0]  # of the cell in row 2, column 2
    assert any(one == pytest.approx(box) for one in found.boxes[0].tolist())


def test_centerness_and_scales_of_fcos() -> None:
    head = fcos(centerness_on_reg=False, learn_scales=True)
    assert {name for name in head.state_dict() if 'scale' in name} == {'scales.0.scale', 'scales.1.scale'}
    features = maps()
    _, before, central = head(features)
    torch.nn.init.zeros_(head.reg_convs[0].conv.weight)
    torch.nn.init.constant_(head.scales[1].scale, 3.0)
    torch.nn.init.constant_(head.conv_reg.bias, 0.5)
    _, after, still = head(features)
    assert all(torch.equal(a, b) for a, b in zip(central, still, strict=True))
    assert after[0].eq(0.5).all() and after[1].eq(1.5).all()


@pytest.mark.parametrize(
    ('make', 'changes', 'message'),
    [
        (retina, dict(num_classes=None), 'RetinaHead: num_classes is None, expected a positive number'),
        (fcos, dict(num_classes=0), 'FCOSHead: num_classes is 0, expected a positive number'),
        (retina, dict(normalizer='mean'), "RetinaHead: normalizer is 'mean', expected one of batch, batch_each, image"),
        (
            fcos,
            dict(anchor_generator=dict(type='AnchorGenerator', strides=(8,), sizes=((8, 9),), ratios=(1.0,))),
            'FCOSHead: anchor_generator gives 2 anchors a cell, expected one',
        ),
    ],
)
def test_mistakes(make: Any, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)
