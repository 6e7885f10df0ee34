import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from frdet.models.task_modules import AssignResult, BaseAssigner, MaxIoUAssigner
from frdet.structures import GroundTruth

LABEL = torch.tensor([0])


def rpn_assigner(**changes: float | bool) -> MaxIoUAssigner:
    return MaxIoUAssigner(**{'pos_iou_thr': 0.7, 'neg_iou_thr': 0.3, 'match_low_quality': True, **changes})


def strip(*widths: float) -> Tensor:
    """Boxes from the origin, 1 high: the IoU of two is the ratio of their widths."""
    return torch.tensor([[0.0, 0.0, w, 1.0] for w in widths])


def random_boxes(count: int) -> Tensor:
    corner = torch.rand(count, 2) * 60
    return torch.cat([corner, corner + torch.rand(count, 2) * 40 + 2], dim=1)


def test_thresholds_by_hand() -> None:
    """IoU with the box 8 wide. A threshold met exactly counts as above it; the fractions are exact in float32."""
    assigner = MaxIoUAssigner(pos_iou_thr=0.75, neg_iou_thr=0.25, match_low_quality=False)
    assigned = assigner.assign(strip(1, 2, 3, 5, 6, 8), strip(8), LABEL)
    assert assigned.iou.tolist() == [0.125, 0.25, 0.375, 0.625, 0.75, 1.0]
    assert assigned.label.tolist() == [0, -1, -1, -1, 1, 1]


def test_one_threshold_leaves_nothing_ignored() -> None:
    assigner = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False)
    assert assigner.assign(strip(1, 3, 4, 5), strip(8), LABEL).label.tolist() == [0, 0, 1, 1]


def test_low_quality_match_gives_every_ground_truth_its_best_boxes() -> None:
    boxes, gt = strip(1, 2, 2), strip(16)
    assert rpn_assigner(match_low_quality=False).assign(boxes, gt, LABEL).label.tolist() == [0, 0, 0]
    # The best IoU is 2 / 16, and two boxes have it.
    assert rpn_assigner().assign(boxes, gt, LABEL).label.tolist() == [0, 1, 1]
    assert rpn_assigner(min_pos_iou=0.125).assign(boxes, gt, LABEL).label.tolist() == [0, 1, 1]
    assert rpn_assigner(min_pos_iou=0.126).assign(boxes, gt, LABEL).label.tolist() == [0, 0, 0]


def test_ground_truth_out_of_reach_makes_nothing_positive() -> None:
    """Its best IoU is 0, and every box attains that."""
    far = torch.tensor([[100.0, 100.0, 110.0, 110.0]])
    assert rpn_assigner().assign(strip(1, 2), far, LABEL).label.tolist() == [0, 0]


def test_whose_box_a_low_quality_match_is() -> None:
    """The only box is the best of both: IoU 6 / 8 = 0.75 with the first, 6 / 10 = 0.6 with the second."""
    boxes, gt, labels = strip(6), strip(8, 10), torch.tensor([3, 4])
    assigned = rpn_assigner().assign(boxes, gt, labels)
    assert (assigned.label.tolist(), assigned.gt_index.tolist()) == ([1], [0])  # its own best one
    assigned = rpn_assigner(reassign_low_quality=True).assign(boxes, gt, labels)
    assert (assigned.label.tolist(), assigned.gt_index.tolist()) == ([1], [1])  # the last it is the best of
    assigned = rpn_assigner(reassign_low_quality=True, min_pos_iou=0.7).assign(boxes, gt, labels)
    assert (assigned.label.tolist(), assigned.gt_index.tolist()) == ([1], [0])  # 0.6 is too little for the second


def mmdet_rule(iou: Tensor, pos: float, neg: float, min_pos: float) -> tuple[list[int], list[int]]:
    """Labels and ground truths (-1 where not positive) from IoU (G, N), in two passes over python numbers."""
    table = iou.tolist()
    owners = []
    for n in range(iou.shape[1]):
        column = [row[n] for row in table]
        best = max(column)
        owners.append(column.index(best) if best >= pos else (-1 if best < neg else -2))
    for g, row in enumerate(table):
        if max(row) >= min_pos:
            owners = [g if value == max(row) else owner for value, owner in zip(row, owners, strict=True)]
    return [1 if o >= 0 else (0 if o == -1 else -1) for o in owners], [max(o, -1) for o in owners]


def test_mmdetections_rule_on_random_boxes() -> None:
    for _ in range(20):
        boxes, gt = random_boxes(60), random_boxes(7)
        assigned = rpn_assigner(reassign_low_quality=True, min_pos_iou=0.3).assign(boxes, gt, torch.zeros(7).long())
        labels, owners = mmdet_rule(box_iou(gt, boxes), 0.7, 0.3, 0.3)
        assert assigned.label.tolist() == labels
        assert assigned.gt_index.masked_fill(assigned.label != 1, -1).tolist() == owners


@pytest.mark.parametrize(('pos', 'neg', 'low_quality'), [(0.7, 0.3, True), (0.7, 0.3, False), (0.5, 0.5, False)])
def test_torchvisions_matcher_on_random_boxes(pos: float, neg: float, low_quality: bool) -> None:
    assigner = MaxIoUAssigner(pos_iou_thr=pos, neg_iou_thr=neg, match_low_quality=low_quality)
    matcher = Matcher(pos, neg, allow_low_quality_matches=low_quality)
    for _ in range(20):
        boxes, gt = random_boxes(80), random_boxes(6)
        boxes = torch.cat([boxes, gt[:2], gt[:2]])  # exact matches, and ties among boxes
        iou = box_iou(gt, boxes)
        matched = matcher(iou)
        assigned = assigner.assign(boxes, gt, torch.zeros(6).long())
        positive = matched >= 0
        assert torch.equal(assigned.label == 1, positive)
        assert torch.equal(assigned.label == 0, matched == Matcher.BELOW_LOW_THRESHOLD)
        assert torch.equal(assigned.label == -1, matched == Matcher.BETWEEN_THRESHOLDS)
        assert torch.equal(assigned.gt_index[positive], matched[positive])
        torch.testing.assert_close(assigned.iou, iou.amax(dim=0))


def test_a_tie_between_ground_truths_goes_to_the_first() -> None:
    gt = strip(4, 8, 8, 2)
    assert rpn_assigner().assign(strip(8), gt, torch.arange(4)).gt_index.tolist() == [1]


@pytest.mark.parametrize('count', [0, 5])
def test_without_ground_truth_all_are_negative(count: int) -> None:
    assigned = rpn_assigner().assign(random_boxes(count), torch.zeros(0, 4), torch.zeros(0).long())
    assert assigned.label.tolist() == [0] * count
    assert assigned.iou.tolist() == [0.0] * count
    assert assigned.gt_index.tolist() == [0] * count


def padded_truth(counts: list[int]) -> GroundTruth:
    most = max(counts)
    boxes, valid = torch.zeros(len(counts), most, 4), torch.zeros(len(counts), most, dtype=torch.bool)
    for i, count in enumerate(counts):
        boxes[i, :count] = random_boxes(count)
        valid[i, :count] = True
    return GroundTruth(boxes, torch.zeros(len(counts), most).long(), valid)


@pytest.mark.parametrize('shared', [True, False])
@pytest.mark.parametrize('reassign', [True, False])
def test_batch_is_image_after_image(shared: bool, reassign: bool) -> None:
    assigner, truth = rpn_assigner(reassign_low_quality=reassign), padded_truth([3, 0, 7, 1])
    boxes = random_boxes(50) if shared else torch.stack([random_boxes(50) for _ in range(4)])
    if not shared:
        boxes[1:3, 40:] = 0  # padding among the boxes
    batch = assigner.assign_batch(boxes, truth)
    for i, valid in enumerate(truth.valid):
        own = boxes if shared else boxes[i]
        expected = assigner.assign(own, truth.boxes[i][valid], truth.labels[i][valid])
        for found, wanted in zip(batch, expected, strict=True):
            assert torch.equal(found[i], wanted)


class NearestCentre(BaseAssigner):
    """A user's assigner of the kind that the interface promises: one image, a few lines."""

    def assign(self, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> AssignResult:
        label = torch.zeros(len(boxes), dtype=torch.long)
        index = torch.zeros_like(label)
        if len(gt_boxes):
            distance = torch.cdist(boxes[:, :2] + boxes[:, 2:], gt_boxes[:, :2] + gt_boxes[:, 2:])
            index = distance.argmin(dim=1)
            label[distance.argmin(dim=0)] = 1
        return AssignResult(label, index, torch.zeros(len(boxes)))


def test_a_custom_assigner_sees_one_image_at_a_time() -> None:
    truth = padded_truth([2, 0])
    batch = NearestCentre().assign_batch(random_boxes(9), truth)
    assert batch.label.shape == batch.gt_index.shape == batch.iou.shape == (2, 9)
    assert 1 <= batch.label[0].sum() <= 2
    assert batch.label[1].sum() == 0


def test_interface_says_what_is_missing() -> None:
    with pytest.raises(TypeError, match='BaseAssigner must define assign'):
        BaseAssigner().assign(torch.zeros(1, 4), torch.zeros(0, 4), torch.zeros(0))
