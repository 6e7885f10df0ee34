"""Assigners make every box positive, negative or ignored, and give it a ground truth."""

from typing import NamedTuple

import torch
from torch import Tensor

from frdet import ops
from frdet.registry import ASSIGNERS
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

    def __init__(
        self,
        *,
        pos_iou_thr: float,
        neg_iou_thr: float,
        match_low_quality: bool,
        min_pos_iou: float = 0.0,
        reassign_low_quality: bool = False,
    ):
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.match_low_quality = match_low_quality
        self.min_pos_iou = min_pos_iou
        self.reassign_low_quality = reassign_low_quality

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
