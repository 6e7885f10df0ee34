import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from frdet.errors import ConfigError
from frdet.models.task_modules import (
    AssignResult,
    BaseAssigner,
    BaseSampler,
    IoUBalancedSampler,
    MaxIoUAssigner,
    OHEMSampler,
    RandomSampler,
    SampleResult,
)
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


def test_assigner_says_what_is_missing() -> None:
    with pytest.raises(TypeError, match='BaseAssigner must define assign'):
        BaseAssigner().assign(torch.zeros(1, 4), torch.zeros(0, 4), torch.zeros(0))


def assigned(label: Tensor, iou: Tensor | None = None) -> AssignResult:
    return AssignResult(label, torch.zeros_like(label), torch.zeros(label.shape) if iou is None else iou)


def labels(positive: int, negative: int, ignored: int) -> Tensor:
    """That many of each, in a random order."""
    values = torch.cat([torch.ones(positive), torch.zeros(negative), -torch.ones(ignored)]).long()
    return values[torch.randperm(len(values))]


def check(label: Tensor, result: SampleResult, expected: list[tuple[int, int]]) -> None:
    """Each row picks distinct boxes, as many positive and negative ones as expected, and no ignored one."""
    assert result.index.shape == result.positive.shape == result.valid.shape
    for row, index, positive, valid, (num_pos, num_neg) in zip(label, *result, expected, strict=True):
        assert positive[~valid].sum() == 0
        assert index[~valid].eq(0).all()
        chosen = index[valid]
        assert len(chosen.unique()) == len(chosen) == num_pos + num_neg
        assert positive.sum() == num_pos
        assert row[index[positive]].eq(1).all()
        assert row[index[valid & ~positive]].eq(0).all()


# (positive, negative, ignored) boxes of an image, and what 8 places at a fraction of 0.25 hold.
CASES = [
    ((10, 20, 5), (2, 6)),  # int(0.25 * 8) positives, filled up
    ((1, 20, 5), (1, 7)),  # fewer positives: more negatives
    ((10, 3, 5), (2, 3)),  # fewer negatives: places stay empty
    ((0, 20, 15), (0, 8)),
    ((12, 0, 3), (2, 0)),
    ((0, 0, 9), (0, 0)),
    ((1, 2, 0), (1, 2)),  # fewer boxes than places
]
SAMPLERS = [RandomSampler, IoUBalancedSampler]


@pytest.mark.parametrize('kind', SAMPLERS)
@pytest.mark.parametrize(('counts', 'expected'), CASES)
def test_counts(kind: type[BaseSampler], counts: tuple[int, int, int], expected: tuple[int, int]) -> None:
    label = labels(*counts)
    sampler = kind(num=8, pos_fraction=0.25)
    check(label[None], sampler.sample_batch(assigned(label[None])), [expected])
    positive, negative = sampler.sample(assigned(label))
    assert (len(positive), len(negative)) == expected
    assert label[positive].eq(1).all() and label[negative].eq(0).all()


@pytest.mark.parametrize('kind', SAMPLERS)
def test_a_batch_obeys_the_rule_in_every_image(kind: type[BaseSampler]) -> None:
    counts = [(10, 20, 5), (1, 20, 14), (10, 3, 22), (0, 35, 0), (0, 0, 35), (35, 0, 0)]
    label = torch.stack([labels(*c) for c in counts])
    result = kind(num=8, pos_fraction=0.25).sample_batch(assigned(label))
    assert result.index.shape == (6, 8)
    check(label, result, [(2, 6), (1, 7), (2, 3), (0, 8), (0, 0), (2, 0)])


@pytest.mark.parametrize('kind', SAMPLERS)
def test_more_places_than_boxes_takes_all(kind: type[BaseSampler]) -> None:
    label = torch.stack([labels(4, 5, 1), labels(7, 3, 0)])
    result = kind(num=1000, pos_fraction=0.5).sample_batch(assigned(label))
    assert result.index.shape == (2, 10)
    check(label, result, [(4, 5), (7, 3)])


def test_fractions_round_down() -> None:
    """int(0.25 * 7) = 1."""
    label = labels(10, 10, 0)[None]
    check(label, RandomSampler(num=7, pos_fraction=0.25).sample_batch(assigned(label)), [(1, 6)])
    check(label, RandomSampler(num=7, pos_fraction=0.0).sample_batch(assigned(label)), [(0, 7)])
    check(label, RandomSampler(num=7, pos_fraction=1.0).sample_batch(assigned(label)), [(7, 0)])


def test_positives_come_first() -> None:
    label = torch.stack([labels(9, 9, 2) for _ in range(5)])
    result = RandomSampler(num=8, pos_fraction=0.5).sample_batch(assigned(label))
    assert result.positive.tolist() == [[True] * 4 + [False] * 4] * 5
    assert result.valid.all()


@pytest.mark.parametrize('kind', SAMPLERS)
def test_every_box_is_as_likely(kind: type[BaseSampler]) -> None:
    """4 of 10 positives and 4 of 20 negatives in 4000 draws: 1600 and 800 each, standard deviation at most 31."""
    label = torch.cat([torch.ones(10), torch.zeros(20)]).long()
    sampler = kind(num=8, pos_fraction=0.5)
    drawn = torch.zeros(30)
    if kind is RandomSampler:
        result = sampler.sample_batch(assigned(label.expand(4000, -1)))
        drawn += torch.bincount(result.index.flatten(), minlength=30)
    else:
        for _ in range(4000):
            drawn[torch.cat(sampler.sample(assigned(label)))] += 1
    assert (drawn[:10] - 1600).abs().max() < 5 * 31
    assert (drawn[10:] - 800).abs().max() < 5 * 26


def test_draws_differ_between_images_and_calls() -> None:
    label = labels(50, 50, 0).expand(2, -1)
    sampler = RandomSampler(num=20, pos_fraction=0.5)
    first, second = sampler.sample_batch(assigned(label)), sampler.sample_batch(assigned(label))
    rows = {tuple(sorted(row)) for result in (first, second) for row in result.index.tolist()}
    assert len(rows) == 4


def test_negatives_are_balanced_over_iou() -> None:
    """90 negatives near IoU 0, 6 around 0.15, 6 around 0.3: a third of 9 places each."""
    iou = torch.cat([torch.full((90,), 0.01), torch.full((6,), 0.15), torch.full((6,), 0.3)])
    label = torch.zeros(102).long()
    _, negative = IoUBalancedSampler(num=9, pos_fraction=0.5, num_bins=3).sample(assigned(label, iou))
    assert torch.bincount(torch.bucketize(iou[negative], torch.tensor([0.1, 0.2])), minlength=3).tolist() == [3, 3, 3]


def test_bins_with_too_few_are_filled_from_the_rest() -> None:
    iou = torch.cat([torch.full((90,), 0.01), torch.full((2,), 0.15), torch.full((1,), 0.3)])
    label = torch.zeros(93).long()
    _, negative = IoUBalancedSampler(num=9, pos_fraction=0.5, num_bins=3).sample(assigned(label, iou))
    assert len(negative.unique()) == 9
    assert torch.isin(torch.tensor([90, 91, 92]), negative).all()


class HighestIoU(BaseSampler):
    """A user's sampler of the kind that the interface promises."""

    def sample(self, assigned: AssignResult) -> tuple[Tensor, Tensor]:
        positive = (assigned.label == 1).nonzero().squeeze(1)
        negative = (assigned.label == 0).nonzero().squeeze(1)
        order = assigned.iou[negative].argsort(descending=True)
        return positive[:1], negative[order][: self.num - 1]


def test_the_hardest_of_each_kind() -> None:
    """Room for two positives and two negatives; the ignored box has the largest loss of all."""
    label = torch.tensor([[1, 0, 1, 0, 1, 0, -1], [0, 0, 1, 0, -1, -1, -1]])
    loss = torch.tensor([[0.5, 3.0, 0.7, 0.1, 0.6, 2.0, 9.0], [0.1, 0.3, 0.0, 0.2, 9.0, 9.0, 9.0]])
    sampler = OHEMSampler(num=4, pos_fraction=0.5)
    index, positive, valid = sampler.sample_batch(assigned(label), loss)
    assert index.tolist() == [[2, 4, 1, 5], [2, 1, 3, 0]]
    assert positive.tolist() == [[True, True, False, False], [True, False, False, False]]
    assert valid.all()
    shown = sampler.sample_batch(assigned(label), torch.where(loss == 0.5, torch.nan, loss))
    assert shown.index[0].tolist() == [0, 2, 1, 5]  # a loss that is NaN is not left out
    assert not sampler.sample_batch(assigned(label[:, 6:]), loss[:, 6:]).valid.any()


def test_hard_examples_need_losses() -> None:
    with pytest.raises(ConfigError, match='an RoI head gives them. Elsewhere use RandomSampler'):
        OHEMSampler(num=4, pos_fraction=0.5).sample_batch(assigned(labels(2, 3, 1)))


def test_a_custom_sampler_sees_one_image_at_a_time() -> None:
    label = torch.tensor([[1, 0, 0, 0, -1], [0, 0, -1, -1, -1]])
    iou = torch.tensor([[0.9, 0.1, 0.3, 0.2, 0.5], [0.0, 0.1, 0.5, 0.5, 0.5]])
    result = HighestIoU(num=3, pos_fraction=0.5).sample_batch(assigned(label, iou))
    assert result.index.tolist() == [[0, 2, 3], [1, 0, 0]]
    assert result.positive.tolist() == [[True, False, False], [False] * 3]
    assert result.valid.tolist() == [[True] * 3, [True, True, False]]


def test_sampler_says_what_is_missing() -> None:
    with pytest.raises(TypeError, match='BaseSampler must define sample'):
        BaseSampler(num=1, pos_fraction=0.5).sample(assigned(labels(1, 1, 0)))
