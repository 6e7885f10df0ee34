"""Two images of 64 x 64 pixels, two feature maps of stride 4 and 8, four classes."""

import math

import pytest
import torch
import torchvision
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, roi_align

from frdet.models.roi_heads import FCBBoxHead, MultiScaleRoIAlign, StandardRoIHead
from frdet.models.roi_heads.stage import add_truth, sample_rois
from frdet.models.task_modules import Detections, Proposals
from frdet.structures import GroundTruth

K = 4
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
SIZES = torch.tensor([[64.0, 64.0], [48.0, 60.0]])


def make_head(
    num: int = 10**6, add_gt: bool = True, class_agnostic: bool = False, **changes: object
) -> StandardRoIHead:
    """All proposals are sampled unless ``num`` says otherwise, so that chance plays no part."""
    arguments = dict(
        roi_extractor=dict(
            type='MultiScaleRoIAlign', strides=(4, 8), output_size=3, canonical_size=32.0, canonical_level=3
        ),
        bbox_head=dict(
            type='FCBBoxHead',
            num_classes=K,
            in_channels=5,
            roi_size=3,
            fc_channels=16,
            num_fcs=2,
            class_agnostic=class_agnostic,
        ),
        box_coder=dict(type='DeltaXYWHCoder', weights=WEIGHTS),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False),
        sampler=dict(type='RandomSampler', num=num, pos_fraction=0.25),
        loss_cls=dict(type='CrossEntropyLoss'),
        loss_bbox=dict(type='L1Loss'),
        add_gt_as_proposals=add_gt,
        score_thr=0.15,
        nms_iou_thr=0.5,
        max_per_image=12,
    )
    head = StandardRoIHead(**{**arguments, **changes})
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return head


def features() -> list[Tensor]:
    return [torch.randn(2, 5, 16, 16), torch.randn(2, 5, 8, 8)]


def make_truth(*counts: int) -> GroundTruth:
    most = max(1, *counts)
    boxes, valid = torch.zeros(len(counts), most, 4), torch.arange(most) < torch.tensor(counts)[:, None]
    boxes[valid] = random_boxes(sum(counts))
    labels = torch.randint(K, (len(counts), most)).masked_fill(~valid, 0)
    return GroundTruth(boxes, labels, valid)


def random_boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2) * 30
    return torch.cat([corner, corner + torch.rand(count, 2) * 25 + 5], dim=1)


def make_proposals(truth: GroundTruth, counts: tuple[int, int] = (30, 20)) -> Proposals:
    """Random boxes and boxes near the ground truth; the places that are left over are empty."""
    boxes, valid = torch.zeros(2, max(counts), 4), torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    for i, count in enumerate(counts):
        boxes[i, :count] = random_boxes(count)
        gt = truth.boxes[i][truth.valid[i]]
        boxes[i, : len(gt)] = gt + torch.rand(len(gt), 4)
    return Proposals(boxes, torch.zeros(valid.shape).masked_fill(~valid, -math.inf), valid)


def slow_outputs(head: StandardRoIHead, maps: list[Tensor], image: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Box by box: level, RoIAlign, box head."""
    scores, deltas = [], []
    for box in boxes:
        side = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        level = min(max(math.floor(3 + math.log2(side / 32 + 1e-8)), 2), 3)
        roi = torch.cat([torch.tensor([float(image)]), box])[None]
        pooled = roi_align(maps[level - 2], roi, 3, 1 / 2**level, 0, aligned=True)
        score, delta = head.bbox_head(pooled)
        scores.append(score[0])
        deltas.append(delta[0])
    return torch.stack(scores), torch.stack(deltas)


def slow_losses(
    head: StandardRoIHead, maps: list[Tensor], proposals: Proposals, truth: GroundTruth
) -> tuple[Tensor, Tensor, float, int]:
    loss_cls = loss_bbox = torch.zeros(())
    samples = positives = correct = 0
    for image in range(2):
        gt, labels = (x[image][truth.valid[image]] for x in (truth.boxes, truth.labels))
        boxes = proposals.boxes[image][proposals.valid[image]]
        if head.add_gt_as_proposals:
            boxes = torch.cat([boxes, gt])
        scores, deltas = slow_outputs(head, maps, image, boxes)
        for box, score, delta in zip(boxes, scores, deltas, strict=True):
            iou = box_iou(gt, box[None])[:, 0].tolist()
            best = max(iou, default=0.0)
            label = K
            if best >= 0.5:
                owner = iou.index(best)
                label = labels[owner].item()
                target = BoxCoder(WEIGHTS).encode_single(gt[owner : owner + 1], box[None])[0]
                loss_bbox = loss_bbox + (delta[0 if len(delta) == 1 else label] - target).abs().sum()
                positives += 1
            loss_cls = loss_cls - F.log_softmax(score, dim=0)[label]
            correct += score.argmax().item() == label
            samples += 1
    return loss_cls / samples, loss_bbox / samples, 100 * correct / samples, positives


@pytest.mark.parametrize('class_agnostic', [True, False])
@pytest.mark.parametrize('add_gt', [True, False])
@pytest.mark.parametrize('counts', [(3, 1), (2, 0), (0, 0)])
def test_losses_are_those_of_a_slow_loop(class_agnostic: bool, add_gt: bool, counts: tuple[int, int]) -> None:
    head = make_head(
        add_gt=add_gt, class_agnostic=class_agnostic, sampler=dict(type='RandomSampler', num=999, pos_fraction=1.0)
    )
    truth, maps = make_truth(*counts), features()
    proposals = make_proposals(truth)
    losses = head.loss(maps, proposals, truth)
    loss_cls, loss_bbox, accuracy, positives = slow_losses(head, maps, proposals, truth)
    assert positives >= sum(counts)
    torch.testing.assert_close(losses['loss_cls'], loss_cls)
    torch.testing.assert_close(losses['loss_bbox'], loss_bbox)
    assert losses['acc'].item() == pytest.approx(accuracy, rel=1e-5)
    assert losses['roi_num_pos'].item() == positives / 2


def test_gradients_are_those_of_a_slow_loop() -> None:
    head = make_head(sampler=dict(type='RandomSampler', num=999, pos_fraction=1.0))
    truth, maps = make_truth(3, 1), features()
    proposals = make_proposals(truth)
    losses = head.loss(maps, proposals, truth)
    found = torch.autograd.grad(losses['loss_cls'] + losses['loss_bbox'], list(head.parameters()))
    loss_cls, loss_bbox, *_ = slow_losses(head, maps, proposals, truth)
    expected = torch.autograd.grad(loss_cls + loss_bbox, list(head.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_empty_places_are_never_sampled() -> None:
    """They hold boxes without area, which would count as background."""
    truth = make_truth(1, 1)
    proposals = make_proposals(truth, counts=(40, 3))
    head = make_head(num=16)
    sample = sample_rois(head, [], *add_truth(proposals.boxes, proposals.valid, truth), truth)
    boxes, labels, positive, valid = sample.boxes, sample.labels, sample.positive, sample.valid
    assert valid.sum(dim=1).tolist() == [16, 4]  # 3 proposals and the ground truth
    sides = boxes[valid][:, 2:] - boxes[valid][:, :2]
    assert (sides > 0).all()
    assert labels[valid & ~positive].eq(K).all()
    assert labels[positive].lt(K).all()


def test_positives_are_a_quarter_at_most() -> None:
    truth = make_truth(2, 2)
    near = truth.boxes.repeat(1, 10, 1) + torch.rand(2, 20, 4)
    sample = sample_rois(make_head(num=16), [], near, torch.ones(2, 20).bool(), truth)
    assert sample.positive.sum(dim=1).tolist() == [4, 4]  # int(0.25 * 16), though 20 would do
    assert sample.valid.sum(dim=1).tolist() == [4, 4]  # and there is no background to fill up with


def slow_detections(head: StandardRoIHead, maps: list[Tensor], image: int, boxes: Tensor) -> InstanceData:
    scores, deltas = slow_outputs(head, maps, image, boxes)
    deltas = deltas.expand(-1, K, -1)
    decoded = BoxCoder(WEIGHTS).decode_single(deltas.flatten(1), boxes).view(-1, K, 4)
    decoded = clip_boxes_to_image(decoded, tuple(SIZES[image].tolist()))
    rows, labels = (scores.softmax(dim=1)[:, :K] > head.score_thr).nonzero(as_tuple=True)
    decoded, scores = decoded[rows, labels], scores.softmax(dim=1)[rows, labels]
    keep = batched_nms(decoded, scores, labels, 0.5)[: head.max_per_image]
    return InstanceData(bboxes=decoded[keep], scores=scores[keep], labels=labels[keep])


def instances(found: Detections) -> list[InstanceData]:
    """The detections of each image, without the empty places."""
    return [
        InstanceData(bboxes=boxes[labels >= 0], scores=scores[labels >= 0], labels=labels[labels >= 0])
        for boxes, scores, labels in zip(*found[:3], strict=True)
    ]


@pytest.mark.parametrize('class_agnostic', [True, False])
@torch.no_grad()
def test_detections_are_those_of_a_slow_reference(class_agnostic: bool) -> None:
    head, maps = make_head(class_agnostic=class_agnostic), features()
    proposals = make_proposals(make_truth(0, 0), counts=(30, 2))
    results = instances(head.predict(maps, proposals, SIZES))
    assert len(results[0]) == 12 > len(results[1]) > 0
    for image, found in enumerate(results):
        expected = slow_detections(head, maps, image, proposals.boxes[image][proposals.valid[image]])
        assert torch.equal(found.labels, expected.labels)
        torch.testing.assert_close(found.scores, expected.scores)
        torch.testing.assert_close(found.bboxes, expected.bboxes, atol=1e-3, rtol=1e-5)


@torch.no_grad()
def test_thresholds_set_on_a_built_head() -> None:
    """As users do with a loaded detector: the detections are those of a head that was built so."""
    made, maps, proposals = make_head(), features(), make_proposals(make_truth(0, 0), counts=(30, 2))
    made.score_thr, made.max_per_image = 0.0, 5
    assert instances(made.predict(maps, proposals, SIZES))[0].scores.shape == (5,)
    made.max_per_image, made.min_side = 100, 1e4
    assert [len(found) for found in instances(made.predict(maps, proposals, SIZES))] == [0, 0]


@pytest.mark.parametrize('counts', [(5, 0), (0, 0)])
@torch.no_grad()
def test_images_without_proposals(counts: tuple[int, int]) -> None:
    found = make_head(score_thr=0.0).predict(features(), make_proposals(make_truth(0, 0), counts), SIZES)
    results = instances(found)
    assert [len(r) > 0 for r in results] == [c > 0 for c in counts]
    assert all(r.bboxes.shape == (len(r), 4) for r in results)


def head(**changes: int | bool) -> FCBBoxHead:
    return FCBBoxHead(**{'num_classes': 3, 'in_channels': 4, 'roi_size': 2, 'fc_channels': 8, 'num_fcs': 2, **changes})


def test_values_by_plain_matrix_products() -> None:
    made = head()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    pooled = torch.randn(5, 4, 2, 2)
    state = made.state_dict()
    x = pooled.reshape(5, 16)
    for i in (0, 1):
        x = (x @ state[f'shared_fcs.{i}.weight'].T + state[f'shared_fcs.{i}.bias']).clamp(min=0)
    scores, deltas = made(pooled)
    torch.testing.assert_close(scores, x @ state['fc_cls.weight'].T + state['fc_cls.bias'])
    # Four deltas of the first class, then four of the second, ...
    for k in range(3):
        rows = slice(4 * k, 4 * k + 4)
        torch.testing.assert_close(deltas[:, k], x @ state['fc_reg.weight'][rows].T + state['fc_reg.bias'][rows])


def test_convolutions_come_first() -> None:
    """Against torch's own layers: a convolution without bias, batch norm with fixed statistics, ReLU; twice."""
    made = head(num_convs=2, conv_channels=6, norm=dict(type='FrozenBN'), num_fcs=1)
    for tensor in made.state_dict().values():
        nn.init.uniform_(tensor, 0.5, 1.5) if tensor.dim() == 1 else nn.init.normal_(tensor, std=0.5)
    state, pooled = made.state_dict(), torch.randn(5, 4, 2, 2)
    x = pooled
    for i in (0, 1):
        conv, norm = f'shared_convs.{i}.conv', f'shared_convs.{i}.bn'
        x = F.conv2d(x, state[f'{conv}.weight'], padding=1)
        statistics = (state[f'{norm}.{kind}'] for kind in ('running_mean', 'running_var', 'weight', 'bias'))
        x = F.batch_norm(x, *statistics).relu()
    x = F.linear(x.flatten(1), state['shared_fcs.0.weight'], state['shared_fcs.0.bias']).relu()
    torch.testing.assert_close(made(pooled)[0], F.linear(x, state['fc_cls.weight'], state['fc_cls.bias']))


def test_convolutions_without_a_norm() -> None:
    made = head(num_convs=1, conv_channels=64, in_channels=32, num_fcs=0)
    assert [name for name, _ in made.shared_convs.named_parameters()] == ['0.conv.weight', '0.conv.bias']
    assert made.fc_cls.in_features == 64 * 2 * 2
    # sqrt(2 / fan-out) of 9 * 64 outputs
    assert made.shared_convs[0].conv.weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.05)


@pytest.mark.parametrize('rois', [0, 3])
def test_shapes(rois: int) -> None:
    """Also where not one RoI is left."""
    pooled = torch.randn(rois, 4, 2, 2)
    assert [tuple(x.shape) for x in head()(pooled)] == [(rois, 4), (rois, 3, 4)]
    assert [tuple(x.shape) for x in head(class_agnostic=True)(pooled)] == [(rois, 4), (rois, 1, 4)]
    convolved = head(num_convs=1, norm=dict(type='BN')).eval()(pooled)
    assert [tuple(x.shape) for x in convolved] == [(rois, 4), (rois, 3, 4)]


@pytest.mark.parametrize('num_fcs', [0, 1, 3])
def test_number_of_shared_layers(num_fcs: int) -> None:
    made = head(num_fcs=num_fcs)
    assert len(made.shared_fcs) == num_fcs
    assert made.fc_cls.in_features == (8 if num_fcs else 16)
    assert made(torch.randn(2, 4, 2, 2))[0].shape == (2, 4)


def test_initial_weights() -> None:
    made = head(num_classes=80, fc_channels=256)
    assert made.fc_cls.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert made.fc_reg.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert made.shared_fcs[1].weight.std().item() == pytest.approx(1 / 16, rel=0.05)  # sqrt(1 / fan-in)
    assert all(p.eq(0).all() for name, p in made.named_parameters() if name.endswith('bias'))


ROIS = torch.tensor([[0.0, 3.0, 5.0, 40.0, 30.0], [1.0, 10.0, 0.0, 120.0, 100.0]])


def maps() -> list[torch.Tensor]:
    return [torch.randn(2, 3, 128 // s, 128 // s) for s in (4, 8, 16, 32, 64)]


def test_default_rule_is_detectron2s() -> None:
    """Both RoIs are smaller than 112: the finest level; aligned, samples adapted to the size, 7 x 7."""
    features = maps()
    pooled = MultiScaleRoIAlign(strides=(4, 8, 16, 32))(features, ROIS)
    torch.testing.assert_close(pooled, torchvision.ops.roi_align(features[0], ROIS, 7, 0.25, 0, aligned=True))


def test_arguments_reach_the_operator() -> None:
    features = maps()
    extractor = MultiScaleRoIAlign(
        strides=(4, 8), output_size=3, sampling_ratio=2, aligned=False, canonical_size=64.0, canonical_level=3
    )
    pooled = extractor(features, ROIS)
    # sqrt(37 * 25) = 30 < 64: level 2, the first; sqrt(110 * 100) = 105 > 64: level 3, the second
    for i, (level, scale) in enumerate([(0, 0.25), (1, 0.125)]):
        expected = torchvision.ops.roi_align(features[level], ROIS[i : i + 1], 3, scale, 2, aligned=False)
        torch.testing.assert_close(pooled[i : i + 1], expected)


def test_levels_without_a_stride_are_not_used() -> None:
    features = maps()
    huge = torch.tensor([[0.0, 0.0, 0.0, 5000.0, 5000.0]])
    pooled = MultiScaleRoIAlign(strides=(4, 8, 16, 32))(features, huge)
    features[4].fill_(1e9)
    torch.testing.assert_close(MultiScaleRoIAlign(strides=(4, 8, 16, 32))(features, huge), pooled)
