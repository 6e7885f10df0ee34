"""What a head is trained on.

Assigners make every box positive, negative or ignored, and give it a ground truth. Samplers choose the assigned boxes
that count.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from frdet import ops
from frdet.errors import ConfigError
from frdet.registry import ASSIGNERS, SAMPLERS
from frdet.structures import GroundTruth

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class AssignResult(NamedTuple):
    """The assignment of N boxes: tensors (N,) of one image, or (B, N) of a batch.

    Attributes:
        label: int64; 1 positive, 0 negative, -1 ignored.
        gt_index: int64; the ground truth of a positive box, any legal index for other boxes.
        iou: float32; the largest IoU with a ground truth.
    """

    label: Tensor
    gt_index: Tensor
    iou: Tensor


class BaseAssigner:
    """Interface. A custom assigner overrides ``assign``; ``assign_batch`` then loops over the images."""

    def assign(self, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> AssignResult:
        """Assign one image's boxes (N, 4) to its ground truth (G, 4) with labels (G,); G may be 0.

        Returns:
            Tensors (N,).
        """
        raise TypeError(f'{type(self).__name__} must define assign(boxes, gt_boxes, gt_labels)')

    def assign_batch(self, boxes: Tensor, truth: GroundTruth) -> AssignResult:
        """Assign boxes (B, N, 4), or (N, 4) for all images alike, to the ground truth of B images.

        Returns:
            Tensors (B, N).
        """
        shared = boxes.dim() == 2
        results = [
            self.assign(boxes if shared else boxes[i], truth.boxes[i][valid], truth.labels[i][valid])
            for i, valid in enumerate(truth.valid)
        ]
        return AssignResult(*(torch.stack(parts) for parts in zip(*results, strict=True)))


@ASSIGNERS.register_module()
@dataclass(kw_only=True, eq=False)
class MaxIoUAssigner(BaseAssigner):
    """Assign by the largest IoU (Faster R-CNN, section 3.1.2).

    A box is positive if its largest IoU is at least ``pos_iou_thr``, negative if it is below ``neg_iou_thr``, and
    ignored in between. Without ground truth all boxes are negative.

    Args:
        pos_iou_thr, neg_iou_thr: the two thresholds.
        match_low_quality: every box with the largest IoU of a ground truth is positive, too: case (i) of the paper,
            which leaves no ground truth without an anchor.
        min_pos_iou: this happens only if that IoU is at least this (and above 0).
        reassign_low_quality: such a box is assigned to that ground truth, the last one of several (MMDetection), and
            not to the ground truth that it overlaps most (detectron2, torchvision).
    """

    pos_iou_thr: float
    neg_iou_thr: float
    match_low_quality: bool
    min_pos_iou: float = 0.0
    reassign_low_quality: bool = False

    def assign(self, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> AssignResult:
        """See ``BaseAssigner.assign``."""
        valid = torch.ones_like(gt_labels, dtype=torch.bool)
        batch = self.assign_batch(boxes, GroundTruth(gt_boxes[None], gt_labels[None], valid[None]))
        return AssignResult(*(x[0] for x in batch))

    def assign_batch(self, boxes: Tensor, truth: GroundTruth) -> AssignResult:
        """See ``BaseAssigner.assign_batch``."""
        match = ops.max_iou(boxes, truth.boxes, truth.valid, self.min_pos_iou)
        label = torch.full_like(match.index, IGNORED)
        label = label.masked_fill(match.iou < self.neg_iou_thr, NEGATIVE)
        label = label.masked_fill(match.iou >= self.pos_iou_thr, POSITIVE)
        gt_index = match.index
        if self.match_low_quality:
            low_quality = match.best_of >= 0
            label = label.masked_fill(low_quality, POSITIVE)
            if self.reassign_low_quality:
                gt_index = torch.where(low_quality, match.best_of, gt_index)
        return AssignResult(label, gt_index, match.iou)


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


@dataclass(kw_only=True, eq=False)
class BaseSampler:
    """Interface. A custom sampler overrides ``sample``; ``sample_batch`` then loops over the images.

    Args:
        num: largest number of samples of an image.
        pos_fraction: at most int(pos_fraction * num) of them are positive.
    """

    num: int
    pos_fraction: float

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
        return self._with_largest(torch.rand(assigned.label.shape, device=assigned.label.device), assigned.label)

    def _with_largest(self, key: Tensor, label: Tensor) -> SampleResult:
        """The boxes with the largest keys (B, N) of the positives and of the negatives."""
        count = label.shape[1]
        num = min(self.num, count)
        num_pos = min(int(self.pos_fraction * self.num), count)
        pos_index = torch.where(label == POSITIVE, key, -torch.inf).topk(num_pos, dim=1).indices
        neg_index = torch.where(label == NEGATIVE, key, -torch.inf).topk(num, dim=1).indices
        is_pos, is_neg = label.gather(1, pos_index) == POSITIVE, label.gather(1, neg_index) == NEGATIVE
        # Positives first, then negatives, then padding. The first num are the sample.
        rank = torch.cat([is_pos * 2, is_neg * 1], dim=1).to(torch.int8)
        rank, order = rank.sort(dim=1, descending=True, stable=True)
        index = torch.cat([pos_index, neg_index], dim=1).gather(1, order)[:, :num]
        rank = rank[:, :num]
        return SampleResult(index.masked_fill(rank == 0, 0), rank == 2, rank > 0)


@SAMPLERS.register_module()
class OHEMSampler(RandomSampler):
    """The RoIs whose classification loss is largest: online hard example mining (Shrivastava et al. 2016, section 4).

    The RoI head scores all candidates without gradient. The hardest positives and the hardest negatives are taken
    instead of random ones, as in MMDetection. Its authors report box AP 36.6 instead of 36.4 on COCO (Faster R-CNN),
    and 40.6 instead of 40.3 (Cascade R-CNN), in its pull request 163. The paper takes the hardest of both kinds
    together, by the sum of both losses, after an NMS.

    Raises:
        ConfigError: it stands in a head that gives no losses, such as an RPN.
    """

    #: The head calls ``sample_batch`` with the classification loss (B, N) of every box.
    uses_loss = True

    def sample_batch(self, assigned: AssignResult, loss: Tensor | None = None) -> SampleResult:
        """See ``BaseSampler.sample_batch``. Positives come first."""
        if loss is None:
            raise ConfigError('OHEMSampler got no losses: an RoI head gives them. Elsewhere use RandomSampler')
        return self._with_largest(loss, assigned.label)


@SAMPLERS.register_module()
@dataclass(kw_only=True, eq=False)
class IoUBalancedSampler(BaseSampler):
    """Negatives drawn evenly from bins of their IoU, so that hard negatives are not rare (Libra R-CNN, section 3.1).

    Args:
        num, pos_fraction: see ``BaseSampler``.
        num_bins: bins between 0 and the largest IoU of a negative.
    """

    num_bins: int = 3

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
