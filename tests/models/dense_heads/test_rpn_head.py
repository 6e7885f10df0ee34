"""Two images of 32 x 48 and 24 x 40 pixels, two levels of stride 8 and 16, three anchors a cell."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from frdet.errors import ConfigError
from frdet.models.dense_heads import RPNHead
from frdet.structures import GroundTruth

SIZES = torch.tensor([[32.0, 48.0], [24.0, 40.0]])
TRUTH = GroundTruth(
    boxes=torch.tensor([[[2.0, 3.0, 20.0, 25.0], [10.0, 0.0, 46.0, 30.0]], [[5.0, 5.0, 21.0, 21.0], [0.0] * 4]]),
    labels=torch.zeros(2, 2).long(),
    valid=torch.tensor([[True, True], [True, False]]),
)
NO_TRUTH = GroundTruth(torch.zeros(2, 1, 4), torch.zeros(2, 1).long(), torch.zeros(2, 1).bool())


def fresh_head(num: int = 10**6, **changes: object) -> RPNHead:
    """All anchors are sampled unless ``num`` says otherwise, so that chance plays no part."""
    arguments = dict(
        in_channels=4,
        feat_channels=6,
        anchor_generator=dict(
            type='AnchorGenerator', strides=(8, 16), sizes=((12,), (24,)), ratios=(0.5, 1.0, 2.0), offset=0.5
        ),
        box_coder=dict(type='DeltaXYWHCoder'),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, match_low_quality=True),
        sampler=dict(type='RandomSampler', num=num, pos_fraction=0.5),
        loss_cls=dict(type='BinaryCrossEntropyLoss'),
        loss_bbox=dict(type='L1Loss'),
        normalizer='quota',
        pre_nms_train=20,
        pre_nms_test=12,
        post_nms_train=9,
        post_nms_test=5,
        nms_iou_thr=0.7,
    )
    return RPNHead(**{**arguments, **changes})


def make_head(num: int = 10**6, **changes: object) -> RPNHead:
    """As ``fresh_head``, with weights that make the outputs differ from anchor to anchor."""
    head = fresh_head(num, **changes)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return head


def features() -> list[Tensor]:
    return [torch.randn(2, 4, 4, 6), torch.randn(2, 4, 2, 3)]


def slow_outputs(head: RPNHead, image: int, maps: list[Tensor]) -> list[tuple[Tensor, float, Tensor, int]]:
    """(anchor, logit, deltas, level) for every level, row, column and ratio, read from the raw convolutions."""
    outputs = []
    for level, (feature, stride, size) in enumerate(zip(maps, (8, 16), (12, 24), strict=True)):
        convs = [head.rpn_conv] if isinstance(head.rpn_conv, nn.Conv2d) else [part['conv'] for part in head.rpn_conv]
        hidden = feature
        for conv in convs:
            hidden = conv(hidden).clamp(min=0)
        logits, deltas = head.rpn_cls(hidden)[image], head.rpn_reg(hidden)[image]
        for y in range(feature.shape[2]):
            for x in range(feature.shape[3]):
                for a, ratio in enumerate((0.5, 1.0, 2.0)):
                    w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                    cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
                    anchor = torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                    outputs.append((anchor, logits[a, y, x], deltas[4 * a : 4 * a + 4, y, x], level))
    return outputs


def slow_encode(anchor: Tensor, target: Tensor) -> Tensor:
    ax, ay, aw, ah = (
        (anchor[0] + anchor[2]) / 2,
        (anchor[1] + anchor[3]) / 2,
        anchor[2] - anchor[0],
        anchor[3] - anchor[1],
    )
    tx, ty, tw, th = (
        (target[0] + target[2]) / 2,
        (target[1] + target[3]) / 2,
        target[2] - target[0],
        target[3] - target[1],
    )
    return torch.stack([(tx - ax) / aw, (ty - ay) / ah, (tw / aw).log(), (th / ah).log()])


def slow_losses(head: RPNHead, maps: list[Tensor], truth: GroundTruth) -> tuple[Tensor, Tensor, int, int]:
    """Sums of the two losses over all anchors that are not ignored, and how many of these there are, and positives."""
    loss_cls = loss_bbox = torch.zeros(())
    samples = positives = 0
    for image in range(2):
        gt = truth.boxes[image][truth.valid[image]]
        outputs = slow_outputs(head, image, maps)
        iou = box_iou(gt, torch.stack([anchor for anchor, *_ in outputs])).tolist()
        best_of_gt = [max(row) for row in iou]
        for n, (anchor, logit, deltas, _) in enumerate(outputs):
            own = [row[n] for row in iou]
            best = max(own, default=0.0)
            low_quality = any(0 < best_of_gt[g] == own[g] for g in range(len(gt)))
            if best >= 0.7 or low_quality:
                positives += 1
                target = slow_encode(anchor, gt[own.index(best)])
                loss_bbox = loss_bbox + (deltas - target).abs().sum()
                loss_cls = loss_cls - F.logsigmoid(logit)
            elif best < 0.3:
                loss_cls = loss_cls - F.logsigmoid(-logit)
            else:
                continue
            samples += 1
    return loss_cls, loss_bbox, samples, positives


@pytest.mark.parametrize('normalizer', ['quota', 'sampled'])
@pytest.mark.parametrize('truth', [TRUTH, NO_TRUTH])
def test_losses_are_those_of_a_slow_loop(normalizer: str, truth: GroundTruth) -> None:
    head, maps = make_head(num=500, normalizer=normalizer), features()
    losses, _ = head.loss(maps, truth, SIZES)
    loss_cls, loss_bbox, samples, positives = slow_losses(head, maps, truth)
    assert positives > 2 or truth is NO_TRUTH
    # detectron2: 256 an image whatever was sampled (500 here); torchvision: the number of samples
    divisor = 2 * 500 if normalizer == 'quota' else samples
    torch.testing.assert_close(losses['loss_rpn_cls'], loss_cls / divisor)
    torch.testing.assert_close(losses['loss_rpn_bbox'], loss_bbox / divisor)
    assert losses['rpn_num_pos'].item() == positives / 2


@pytest.mark.parametrize('truth', [TRUTH, NO_TRUTH])
def test_gradients_are_those_of_a_slow_loop(truth: GroundTruth) -> None:
    head, maps = make_head(num=500), features()
    losses, _ = head.loss(maps, truth, SIZES)
    found = torch.autograd.grad(losses['loss_rpn_cls'] + losses['loss_rpn_bbox'], list(head.parameters()))
    loss_cls, loss_bbox, *_ = slow_losses(head, maps, truth)
    expected = torch.autograd.grad((loss_cls + loss_bbox) / 1000, list(head.parameters()), allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b)


def test_sampled_losses_count_the_quota() -> None:
    """8 anchors an image: every logit 0 costs log 2, whichever are drawn."""
    head = make_head(num=8)
    for layer in (head.rpn_cls, head.rpn_reg):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    losses, _ = head.loss(features(), TRUTH, SIZES)
    assert losses['loss_rpn_cls'].item() == pytest.approx(math.log(2))
    assert losses['rpn_num_pos'] <= 4


class DenseHead(RPNHead):
    """Predicts in a way of its own, for all the base knows."""

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return super().forward(features)


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('truth', [TRUTH, NO_TRUTH])
@pytest.mark.parametrize('num_convs', [1, 3])
def test_few_samples_give_the_gradients_of_the_dense_pass(truth: GroundTruth, autocast: bool, num_convs: int) -> None:
    """8 of 90 anchors an image: the loss is taken at these alone. Maps and weights get what a pass over all gives."""
    maps = [f.double().requires_grad_() for f in features()]
    head = make_head(num=8, num_convs=num_convs).double()
    found, expected = [], []
    for cls, gradients in ((RPNHead, found), (DenseHead, expected)):
        head.__class__ = cls
        torch.manual_seed(3)
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            inputs = [f.float() for f in maps] if autocast else maps
            losses, proposals = (head.float() if autocast else head).loss(inputs, truth, SIZES)
        total = losses['loss_rpn_cls'] + losses['loss_rpn_bbox']
        gradients += [total, *torch.autograd.grad(total, [*maps, *head.parameters()])]
        gradients += [losses['rpn_num_pos'], proposals.boxes]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **(dict(atol=2e-3, rtol=0.03) if autocast else {}))


def test_few_samples_are_not_predicted_by_the_dense_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above compares the dense pass with itself."""
    calls = []
    predict_at = RPNHead._predict_at
    monkeypatch.setattr(RPNHead, '_predict_at', lambda *args: calls.append(args[0]) or predict_at(*args))
    sparse, dense, own = make_head(num=8), make_head(num=80), make_head(num=8)
    own.__class__ = DenseHead
    for head in (sparse, dense, own):
        losses, _ = head.loss(features(), TRUTH, SIZES)
        assert losses['loss_rpn_cls'].requires_grad
    assert calls == [sparse]


def slow_proposals(head: RPNHead, image: int, maps: list[Tensor], pre: int, post: int) -> list[tuple[float, Tensor]]:
    """(logit, box), best first."""
    height, width = SIZES[image].tolist()
    kept = []
    for level in (0, 1):
        outputs = [o for o in slow_outputs(head, image, maps) if o[3] == level]
        chosen: list[tuple[float, Tensor]] = []
        for anchor, logit, (dx, dy, dw, dh), _ in sorted(outputs, key=lambda o: -o[1])[:pre]:
            w, h = anchor[2] - anchor[0], anchor[3] - anchor[1]
            cx, cy = (anchor[0] + anchor[2]) / 2 + dx * w, (anchor[1] + anchor[3]) / 2 + dy * h
            w, h = w * dw.exp(), h * dh.exp()
            box = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
            box = torch.minimum(box.clamp(min=0), torch.tensor([width, height, width, height]))
            legal = box[2] > box[0] and box[3] > box[1]
            if legal and all(box_iou(box[None], other[None]).item() <= 0.7 for _, other in chosen):
                chosen.append((logit.item(), box))
        kept += chosen
    return sorted(kept, key=lambda c: -c[0])[:post]


@pytest.mark.parametrize('num_convs', [1, 2])
@pytest.mark.parametrize('training', [True, False])
@torch.no_grad()
def test_proposals_are_those_of_a_slow_loop(training: bool, num_convs: int) -> None:
    head, maps = make_head(num_convs=num_convs).train(training), features()
    proposals = head.loss(maps, TRUTH, SIZES)[1] if training else head.predict(maps, SIZES)
    pre, post = (20, 9) if training else (12, 5)
    assert proposals.boxes.shape == (2, post, 4)
    for image in range(2):
        expected = slow_proposals(head, image, maps, pre, post)
        assert proposals.valid[image].sum() == len(expected)
        found = proposals.boxes[image, : len(expected)]
        torch.testing.assert_close(found, torch.stack([box for _, box in expected]), atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(proposals.scores[image, : len(expected)], torch.tensor([s for s, _ in expected]))


def test_proposals_carry_no_gradient() -> None:
    _, proposals = make_head().loss(features(), TRUTH, SIZES)
    assert not proposals.boxes.requires_grad and not proposals.scores.requires_grad


def test_outputs_are_float32_under_autocast() -> None:
    head = make_head()
    with torch.autocast('cpu', torch.bfloat16):
        logits, deltas = head(features())
    assert {x.dtype for x in logits + deltas} == {torch.float32}
    assert [tuple(x.shape) for x in logits] == [(2, 72), (2, 18)]
    assert [tuple(x.shape) for x in deltas] == [(2, 72, 4), (2, 18, 4)]


def test_several_convolutions_are_named_as_in_mmdetection() -> None:
    shapes = {name: tuple(p.shape) for name, p in fresh_head(num_convs=2).named_parameters() if 'rpn_conv' in name}
    assert shapes == {
        'rpn_conv.0.conv.weight': (6, 4, 3, 3),
        'rpn_conv.0.conv.bias': (6,),
        'rpn_conv.1.conv.weight': (6, 6, 3, 3),
        'rpn_conv.1.conv.bias': (6,),
    }
    with pytest.raises(ConfigError, match='num_convs is 0, expected 1 or more'):
        fresh_head(num_convs=0)


@pytest.mark.parametrize('num_convs', [1, 2])
def test_initial_weights(num_convs: int) -> None:
    head = fresh_head(in_channels=64, feat_channels=64, num_convs=num_convs)
    for name, parameter in head.named_parameters():
        if name.endswith('bias'):
            assert parameter.eq(0).all()
        else:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.15)


def test_wrong_normalizer() -> None:
    with pytest.raises(ConfigError, match="normalizer is 'samples', expected one of quota, sampled, sampled_both"):
        make_head(normalizer='samples')


@pytest.mark.parametrize('trained_within', [0, -32])
def test_wrong_size_to_train_within(trained_within: int) -> None:
    with pytest.raises(ConfigError, match=f'trained_within is {trained_within}, expected a number of pixels'):
        make_head(trained_within=trained_within)


def test_an_anchor_that_is_left_out_is_nobodys_best() -> None:
    """Of the first level's anchors the one centred at (36, 28) fits best, but beyond the second image of 24 x 40.

    What is left is centred at (36, 20) at most: of height 17 and width 8.5 it reaches to 28.5 and still overlaps.
    """
    boxes = torch.tensor([[[0.0] * 4], [[30.0, 25.0, 42.0, 37.0]]])
    truth = GroundTruth(boxes, torch.zeros(2, 1).long(), torch.tensor([[False], [True]]))
    losses, _ = make_head(trained_within=8).loss(features(), truth, SIZES)
    assert losses['rpn_num_pos'] == 1 / 2


def test_anchors_that_reach_beyond_the_image_are_left_out() -> None:
    """By a slow loop over MMDetection's rule. Without ground truth all others are negative."""
    truth = GroundTruth(torch.zeros(2, 1, 4), torch.zeros(2, 1).long(), torch.zeros(2, 1).bool())
    counts = []
    for border in (0, 4, 1000):
        head = make_head(allowed_border=border)
        anchors = torch.cat(head.anchor_generator.grid([x.shape[2:] for x in features()]))
        assigned = head._assign(anchors, truth, SIZES)
        for label, (height, width) in zip(assigned.label, SIZES.tolist(), strict=True):
            expected = [
                0 if x1 >= -border and y1 >= -border and x2 < width + border and y2 < height + border else -1
                for x1, y1, x2, y2 in anchors.tolist()
            ]
            assert label.tolist() == expected
        counts.append(int((assigned.label == 0).sum()))
    assert 0 < counts[0] < counts[1] < counts[2] == 2 * len(anchors)
