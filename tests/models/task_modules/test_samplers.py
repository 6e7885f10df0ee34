import pytest
import torch
from torch import Tensor

from frdet.models.task_modules import AssignResult, BaseSampler, IoUBalancedSampler, RandomSampler, SampleResult


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


def test_a_custom_sampler_sees_one_image_at_a_time() -> None:
    label = torch.tensor([[1, 0, 0, 0, -1], [0, 0, -1, -1, -1]])
    iou = torch.tensor([[0.9, 0.1, 0.3, 0.2, 0.5], [0.0, 0.1, 0.5, 0.5, 0.5]])
    result = HighestIoU(num=3, pos_fraction=0.5).sample_batch(assigned(label, iou))
    assert result.index.tolist() == [[0, 2, 3], [1, 0, 0]]
    assert result.positive.tolist() == [[True, False, False], [False] * 3]
    assert result.valid.tolist() == [[True] * 3, [True, True, False]]


def test_interface_says_what_is_missing() -> None:
    with pytest.raises(TypeError, match='BaseSampler must define sample'):
        BaseSampler(num=1, pos_fraction=0.5).sample(assigned(labels(1, 1, 0)))
