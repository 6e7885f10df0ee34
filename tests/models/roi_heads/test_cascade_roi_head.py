"""Cascade R-CNN against slow loops of the rules of detectron2 and MMDetection.

Two images of 64 x 64 and 48 x 60 pixels, two feature maps of stride 4 and 8, four classes, three stages.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from frdet.errors import ConfigError
from frdet.models.detectors import FasterRCNN, class_counts
from frdet.models.roi_heads import CascadeRoIHead
from frdet.models.task_modules import Detections, Proposals
from frdet.registry import MASK_HEADS
from frdet.structures import GroundTruth
from tests.models.roi_heads.test_standard_roi_head import (
    SIZES,
    K,
    features,
    instances,
    make_proposals,
    make_truth,
    slow_outputs,
)

WEIGHTS = [(10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)]
THRESHOLDS = (0.5, 0.6, 0.7)
DETECTRON2 = dict(resample=False, drop_empty=True, scale_gradients=True, average='probabilities')
MMDETECTION = dict(resample=True, drop_empty=False, scale_gradients=False, average='logits')
RULES = {'detectron2': DETECTRON2, 'mmdetection': MMDETECTION}
LOSS_WEIGHTS = (1.0, 0.5, 0.25)
NARROW: dict[str, Any] = dict(num_classes=K, in_channels=5, roi_size=3, fc_channels=16, num_fcs=2)


def make_head(
    rules: dict[str, Any] = DETECTRON2, class_agnostic: bool = True, std: float = 0.2, **changes: Any
) -> CascadeRoIHead:
    """All boxes are sampled, so that chance plays no part."""
    arguments = dict(
        num_stages=3,
        roi_extractor=dict(
            type='MultiScaleRoIAlign', strides=(4, 8), output_size=3, canonical_size=32.0, canonical_level=3
        ),
        bbox_head=dict(type='FCBBoxHead', class_agnostic=class_agnostic, **NARROW),
        box_coder=[dict(type='DeltaXYWHCoder', weights=weights) for weights in WEIGHTS],
        assigner=[
            dict(type='MaxIoUAssigner', pos_iou_thr=thr, neg_iou_thr=thr, match_low_quality=False) for thr in THRESHOLDS
        ],
        sampler=dict(type='RandomSampler', num=999, pos_fraction=1.0),
        loss_cls=dict(type='CrossEntropyLoss'),
        loss_bbox=dict(type='L1Loss'),
        stage_loss_weights=LOSS_WEIGHTS,
        add_gt_as_proposals=True,
        score_thr=0.15,
        nms_iou_thr=0.5,
        max_per_image=12,
    )
    head = CascadeRoIHead(**{**arguments, **rules, **changes})
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=std)
    return head


def sized(proposals: Proposals) -> Proposals:
    return proposals._replace(image_sizes=SIZES)


def slow_stage(
    head: CascadeRoIHead, maps: list[Tensor], image: int, boxes: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    return slow_outputs(SimpleNamespace(bbox_head=head.bbox_head[number]), maps, image, boxes)  # type: ignore[arg-type]


def slow_refined(boxes: Tensor, deltas: Tensor, classes: list[int], number: int, image: int) -> Tensor:
    """Box by box with torchvision's coder."""
    own = torch.stack([one[0 if len(one) == 1 else label] for one, label in zip(deltas, classes, strict=True)])
    moved = BoxCoder(WEIGHTS[number]).decode_single(own, boxes)
    return clip_boxes_to_image(moved, tuple(SIZES[image].tolist())).detach()


class Slow:
    """The losses of all stages, as loops over images and boxes, and what was trained on at each stage."""

    def __init__(
        self, head: CascadeRoIHead, maps: list[Tensor], proposals: Proposals, truth: GroundTruth, rules: str
    ) -> None:
        self.losses: dict[str, Tensor] = {}
        self.counts, self.dropped = [], 0
        boxes = [proposals.boxes[i][proposals.valid[i]] for i in range(2)]
        for number in range(3):
            sums, samples, positives = [torch.zeros(()), torch.zeros(())], 0, 0
            for image in range(2):
                gt, gt_labels = (x[image][truth.valid[image]] for x in (truth.boxes, truth.labels))
                if len(boxes[image]) == 0:
                    continue
                has_truth = number == 0 or rules == 'mmdetection'
                boxes[image] = torch.cat([boxes[image], gt]) if has_truth else boxes[image]
                scores, deltas = slow_stage(head, maps, image, boxes[image], number)
                classes = []
                for box, score, delta in zip(boxes[image], scores, deltas, strict=True):
                    iou = box_iou(gt, box[None])[:, 0].tolist()
                    label = K
                    if max(iou, default=0.0) >= THRESHOLDS[number]:
                        owner = iou.index(max(iou))
                        label = int(gt_labels[owner])
                        target = BoxCoder(WEIGHTS[number]).encode_single(gt[owner : owner + 1], box[None])[0]
                        sums[1] = sums[1] + (delta[0 if len(delta) == 1 else label] - target).abs().sum()
                        positives += 1
                    sums[0] = sums[0] - F.log_softmax(score, dim=0)[label]
                    classes.append(label if label < K else int(score[:K].argmax()))
                    samples += 1
                boxes[image] = slow_refined(boxes[image], deltas, classes, number, image)
                if rules == 'mmdetection':
                    boxes[image] = boxes[image][: len(boxes[image]) - len(gt)]
                else:
                    there = (boxes[image][:, 2:] > boxes[image][:, :2]).all(dim=1)
                    self.dropped += int((~there).sum())
                    boxes[image] = boxes[image][there]
            self.counts.append((samples, positives))
            for name, value in zip(('loss_cls', 'loss_bbox'), sums, strict=True):
                self.losses[f's{number}.{name}'] = LOSS_WEIGHTS[number] * value / samples


@pytest.mark.parametrize('class_agnostic', [True, False])
@pytest.mark.parametrize('rules', RULES)
def test_losses_and_gradients_are_those_of_a_slow_loop(rules: str, class_agnostic: bool) -> None:
    """The box heads' gradients are those of the losses; the features' are a third of them under detectron2's rules."""
    head, maps = make_head(RULES[rules], class_agnostic), [x.requires_grad_() for x in features()]
    truth = make_truth(3, 1)
    proposals = sized(make_proposals(truth))
    proposals.boxes[:, 5] = torch.tensor([2.0, 2.0, 50.0, 45.0])  # of the second level
    losses = head.loss(maps, proposals, truth)
    slow = Slow(head, maps, proposals, truth, rules)
    assert all(0 < positives < samples for samples, positives in slow.counts)
    for name, value in slow.losses.items():
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-4)
    assert [losses[f's{i}.roi_num_pos'].item() * 2 for i in range(3)] == [positives for _, positives in slow.counts]
    parameters = [*head.parameters(), *maps]
    found = torch.autograd.grad(sum(losses[name] for name in slow.losses), parameters)
    expected = torch.autograd.grad(sum(slow.losses.values()), parameters)
    share = 1 / 3 if rules == 'detectron2' else 1.0
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(a, b if i < len(parameters) - 2 else b * share, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize('rules', RULES)
@pytest.mark.parametrize('counts', [(2, 0), (0, 0)])
def test_images_without_ground_truth(rules: str, counts: tuple[int, int]) -> None:
    head, maps, truth = make_head(RULES[rules]), features(), make_truth(*counts)
    proposals = sized(make_proposals(truth))
    losses, slow = head.loss(maps, proposals, truth), Slow(head, maps, proposals, truth, rules)
    for name, value in slow.losses.items():
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-4)


def test_what_is_done_with_boxes_that_leave_the_image() -> None:
    """Wide deltas push some boxes out, where they have no area: detectron2 drops them, in MMDetection they stay."""
    truth, maps = make_truth(3, 1), features()
    proposals = sized(make_proposals(truth))
    for rules in RULES:
        head = make_head(RULES[rules])
        for one in head.bbox_head:
            nn.init.normal_(one.fc_reg.bias, std=15.0)
        losses, slow = head.loss(maps, proposals, truth), Slow(head, maps, proposals, truth, rules)
        for name, value in slow.losses.items():
            torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-4)
        assert (slow.dropped > 0) == (rules == 'detectron2')


def test_later_samples() -> None:
    """Of MMDetection's rule, with room for 8: never more, a quarter of them positive, at every stage anew."""
    truth, maps = make_truth(3, 1), features()
    head = make_head(MMDETECTION, sampler=dict(type='RandomSampler', num=8, pos_fraction=0.25))
    for one in head.bbox_head:
        nn.init.zeros_(one.fc_reg.weight)
        nn.init.zeros_(one.fc_reg.bias)
    seen: list[Tensor] = []
    for one in head.bbox_head:
        one.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    losses = head.loss(maps, sized(make_proposals(truth)), truth)
    assert [len(x) for x in seen] == [16, 16, 16]
    assert all(losses[f's{i}.roi_num_pos'] <= 2 for i in range(3))


def test_box_by_box_by_hand() -> None:
    """A box (10, 10, 30, 30) whose deltas move it by half of its width at every stage, towards (25, 10, 45, 30).

    IoU with the ground truth: 5 / 35, then 15 / 25 = 0.6 at the second stage, and 0.6 again, mirrored, at the third,
    where 0.7 is asked for. So it is background, positive, background.
    """
    head = make_head(add_gt_as_proposals=False)
    for one, weights in zip(head.bbox_head, WEIGHTS, strict=True):
        for parameter in one.parameters():
            nn.init.zeros_(parameter)
        one.fc_reg.bias.data[0] = 0.5 * weights[0]
    truth = GroundTruth(torch.tensor([[[25.0, 10.0, 45.0, 30.0]]]), torch.tensor([[2]]), torch.tensor([[True]]))
    box, sizes = torch.tensor([[[10.0, 10.0, 30.0, 30.0]]]), torch.tensor([[64.0, 64.0]])
    proposals = Proposals(box, torch.zeros(1, 1), torch.tensor([[True]]), sizes)
    losses = head.loss([x[:1] for x in features()], proposals, truth)
    assert [losses[f's{i}.roi_num_pos'].item() for i in range(3)] == [0, 1, 0]
    # The second box is (20, 10, 40, 30): 5 / 20 of the width to go, times 20, and 0.5 * 20 are predicted.
    assert losses['s1.loss_bbox'].item() == pytest.approx(0.5 * abs(20 * 0.25 - 10))
    with torch.no_grad():
        found = head.predict([x[:1] for x in features()], proposals, sizes)
    assert found.boxes[0, 0].tolist() == pytest.approx([40.0, 10.0, 60.0, 30.0])  # moved three times


def slow_detections(
    head: CascadeRoIHead, maps: list[Tensor], image: int, boxes: Tensor, rules: str
) -> tuple[Tensor, Tensor, Tensor]:
    size = tuple(SIZES[image].tolist())
    logits, probabilities = torch.zeros(len(boxes), K + 1), torch.zeros(len(boxes), K + 1)
    for number in range(3):
        scores, deltas = slow_stage(head, maps, image, boxes, number)
        logits, probabilities = logits + scores / 3, probabilities + scores.softmax(dim=1) / 3
        if number < 2:
            boxes = slow_refined(boxes, deltas, scores[:, :K].argmax(dim=1).tolist(), number, image)
    decoded = BoxCoder(WEIGHTS[2]).decode_single(deltas.expand(-1, K, -1).flatten(1), boxes).view(-1, K, 4)
    decoded = clip_boxes_to_image(decoded, size)
    mean = (probabilities if rules == 'detectron2' else logits.softmax(dim=1))[:, :K]
    rows, labels = (mean > head.score_thr).nonzero(as_tuple=True)
    keep = batched_nms(decoded[rows, labels], mean[rows, labels], labels, 0.5)[: head.max_per_image]
    return decoded[rows, labels][keep], mean[rows, labels][keep], labels[keep]


@pytest.mark.parametrize('class_agnostic', [True, False])
@pytest.mark.parametrize('rules', RULES)
@torch.no_grad()
def test_detections_are_those_of_a_slow_loop(rules: str, class_agnostic: bool) -> None:
    head, maps = make_head(RULES[rules], class_agnostic, std=0.3), features()
    proposals = make_proposals(make_truth(0, 0), counts=(30, 2))
    results = instances(head.predict(maps, proposals, SIZES))
    assert len(results[0]) > len(results[1]) > 0
    for image, found in enumerate(results):
        boxes = proposals.boxes[image][proposals.valid[image]]
        expected = slow_detections(head, maps, image, boxes, rules)
        assert torch.equal(found.labels, expected[2])
        torch.testing.assert_close(found.scores, expected[1])
        torch.testing.assert_close(found.bboxes, expected[0], atol=1e-3, rtol=1e-5)


@torch.no_grad()
def test_boxes_that_are_not_finite_are_dropped() -> None:
    head, maps = make_head(score_thr=0.0), features()
    head.bbox_head[0].fc_reg.bias.data.fill_(torch.inf)
    found = head.predict(maps, make_proposals(make_truth(0, 0)), SIZES)
    assert (found.labels == -1).all()


@MASK_HEADS.register_module(force=True)
class MasksOfBoxes(nn.Module):
    """A mask is the same number everywhere, and the loss is the number of positives."""

    def __init__(self, *, value: float) -> None:
        super().__init__()
        self.value = value

    def loss(self, features: Any, boxes: Tensor, labels: Tensor, gt_index: Tensor, positive: Tensor, truth: Any) -> Any:
        gt = truth.boxes.gather(1, gt_index[..., None].expand(-1, -1, 4))
        iou = torch.stack([box_iou(a, b).diagonal() for a, b in zip(boxes, gt, strict=True)])
        assert (iou[positive] >= 0.5).all() and (labels[positive] < K).all()
        return {'loss_mask': positive.sum().float()}

    def predict(self, features: Any, found: Detections) -> Detections:
        return found._replace(masks=torch.full((*found.labels.shape, 2, 2), self.value))


def test_one_mask_head_sees_the_first_stage() -> None:
    head, truth = make_head(mask_head=dict(type='MasksOfBoxes', value=0.5)), make_truth(3, 1)
    losses = head.loss(features(), sized(make_proposals(truth)), truth)
    assert losses['s0.loss_mask'] == 2 * losses['s0.roi_num_pos'] and 's1.loss_mask' not in losses
    with torch.no_grad():
        assert head.predict(features(), make_proposals(truth), SIZES).masks.shape == (2, 12, 2, 2)


def test_a_mask_head_for_each_stage() -> None:
    masks = [dict(type='MasksOfBoxes', value=value) for value in (0.1, 0.2, 0.6)]
    head, truth = make_head(MMDETECTION, mask_head=masks), make_truth(3, 1)
    losses = head.loss(features(), sized(make_proposals(truth)), truth)
    for i in range(3):
        assert losses[f's{i}.loss_mask'] == LOSS_WEIGHTS[i] * 2 * losses[f's{i}.roi_num_pos']
    with torch.no_grad():
        found = head.predict(features(), make_proposals(truth), SIZES).masks
    torch.testing.assert_close(found, torch.full_like(found, 0.3))


def test_names_are_mmdetections() -> None:
    """The heads are not shared, though the config has one."""
    head = make_head()
    assert set(head.state_dict()) == {
        f'bbox_head.{i}.{layer}.{kind}'
        for i in range(3)
        for layer in ('shared_fcs.0', 'shared_fcs.1', 'fc_cls', 'fc_reg')
        for kind in ('weight', 'bias')
    }
    assert head.bbox_head[0] is not head.bbox_head[1]


def test_the_number_of_classes_is_told_by_the_key_of_the_config() -> None:
    """One config for all heads has one number; a list has one for each."""
    one = make_head()
    several = make_head(bbox_head=[dict(type='FCBBoxHead', **NARROW)] * 3)
    for head, keys in ((one, ['']), (several, ['.0', '.1', '.2'])):
        model = FasterRCNN.__new__(FasterRCNN)
        nn.Module.__init__(model)
        model._modules['roi_head'] = head
        assert class_counts(model) == {f'model.roi_head.bbox_head{key}.num_classes': K for key in keys}


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(num_stages=2, stage_loss_weights=(1, 1)), 'num_stages is 2, but box_coder has 3 entries'),
        (dict(stage_loss_weights=(1.0, 1.0)), 'num_stages is 3, but stage_loss_weights has 2 entries'),
        (dict(mask_head=[]), 'num_stages is 3, but mask_head has 0 entries'),
        (dict(average='scores'), "average is 'scores', expected 'probabilities' or 'logits'"),
    ],
)
def test_mistakes(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_head(**wrong)


def test_proposals_without_sizes_of_images() -> None:
    truth = make_truth(1, 1)
    with pytest.raises(ConfigError, match=r'must set Proposals\.image_sizes, as select_proposals does'):
        make_head().loss(features(), make_proposals(truth), truth)
