"""Samplers choose the assigned boxes that a head is trained on."""

from typing import NamedTuple

import torch
from torch import Tensor

from frdet.models.task_modules.assigners import NEGATIVE, POSITIVE, AssignResult
from frdet.registry import SAMPLERS


class SampleResult(NamedTuple):
    """Samples of B images, padded to S an image.

    Attributes:
        index: (B, S) int64, the box; 0 where padded.
        positive: (B, S) bool, False for a negative sample and where padded.
        valid: (B, S) bool, False where padded.
    """

    index: Tensor  # type: ignore[assignment]  # the field, not tuple.index
    positive: Tensor
    valid: Tensor


class BaseSampler:
    """Interface. A custom sampler overrides ``sample``; ``sample_batch`` then loops over the images.

    Args:
        num: largest number of samples of an image.
        pos_fraction: at most int(pos_fraction * num) of them are positive.
    """

    def __init__(self, *, num: int, pos_fraction: float):
        self.num = num
        self.pos_fraction = pos_fraction

    def sample(self, assigned: AssignResult) -> tuple[Tensor, Tensor]:
        """Choose among one image's boxes.

        Args:
            assigned: tensors (N,).

        Returns:
            Indices of the positive and of the negative samples, int64, at most ``num`` together.
        """
        raise TypeError(f'{type(self).__name__} must define sample(assigned)')

    def sample_batch(self, assigned: AssignResult) -> SampleResult:
        """Choose among the boxes of B images, tensors (B, N)."""
        batch, count = assigned.label.shape
        index = assigned.gt_index.new_zeros(batch, min(self.num, count))
        positive = torch.zeros_like(index, dtype=torch.bool)
        valid = torch.zeros_like(positive)
        for i in range(batch):
            pos, neg = self.sample(AssignResult(*(x[i] for x in assigned)))
            n_pos, n = len(pos), len(pos) + len(neg)
            index[i, :n] = torch.cat([pos, neg])
            positive[i, :n_pos] = True
            valid[i, :n] = True
        return SampleResult(index, positive, valid)


@SAMPLERS.register_module()
class RandomSampler(BaseSampler):
    """Random positives, at most ``pos_fraction`` of ``num``, filled up to ``num`` with random negatives.

    Faster R-CNN, section 3.1.3. Every box gets a random key, and the boxes with the largest keys are chosen. Shapes are
    fixed, so the host does not wait for a GPU.
    """

    def sample(self, assigned: AssignResult) -> tuple[Tensor, Tensor]:
        """See ``BaseSampler.sample``."""
        chosen = self.sample_batch(AssignResult(*(x[None] for x in assigned)))
        index, positive, valid = (x[0] for x in chosen)
        return index[positive], index[valid & ~positive]

    def sample_batch(self, assigned: AssignResult) -> SampleResult:
        """See ``BaseSampler.sample_batch``. Positives come first."""
        label = assigned.label
        count = label.shape[1]
        num = min(self.num, count)
        key = torch.rand(label.shape, device=label.device)
        num_pos = min(int(self.pos_fraction * self.num), count)
        pos_key, pos_index = torch.where(label == POSITIVE, key, -1.0).topk(num_pos, dim=1)
        neg_key, neg_index = torch.where(label == NEGATIVE, key, -1.0).topk(num, dim=1)
        is_pos, is_neg = pos_key >= 0, neg_key >= 0
        # Positives first, then negatives, then padding. The first num are the sample.
        rank = torch.cat([is_pos * 2, is_neg * 1], dim=1).to(torch.int8)
        rank, order = rank.sort(dim=1, descending=True, stable=True)
        index = torch.cat([pos_index, neg_index], dim=1).gather(1, order)[:, :num]
        rank = rank[:, :num]
        return SampleResult(index.masked_fill(rank == 0, 0), rank == 2, rank > 0)


@SAMPLERS.register_module()
class IoUBalancedSampler(BaseSampler):
    """Negatives drawn evenly from bins of their IoU, so that hard negatives are not rare (Libra R-CNN, section 3.1).

    Args:
        num, pos_fraction: see ``BaseSampler``.
        num_bins: bins between 0 and the largest IoU of a negative.
    """

    def __init__(self, *, num: int, pos_fraction: float, num_bins: int = 3):
        super().__init__(num=num, pos_fraction=pos_fraction)
        self.num_bins = num_bins

    def sample(self, assigned: AssignResult) -> tuple[Tensor, Tensor]:
        """See ``BaseSampler.sample``."""
        positive = _shuffled(assigned.label == POSITIVE)[: int(self.pos_fraction * self.num)]
        negative = _shuffled(assigned.label == NEGATIVE)
        room = self.num - len(positive)
        if len(negative) <= room:
            return positive, negative
        iou = assigned.iou[negative]
        width = (iou.max() / self.num_bins).clamp(min=1e-6)
        bins = (iou / width).long().clamp(max=self.num_bins - 1)
        chosen = torch.cat([negative[bins == b][: room // self.num_bins] for b in range(self.num_bins)])
        rest = negative[~torch.isin(negative, chosen)]
        return positive, torch.cat([chosen, rest[: room - len(chosen)]])


def _shuffled(mask: Tensor) -> Tensor:
    index = mask.nonzero().squeeze(1)
    return index[torch.randperm(len(index), device=index.device)]
