"""Rules by which a scored box suppresses others of the same object."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from frdet import ops
from frdet.registry import SUPPRESSIONS

#: Boxes (B, N, 4), scores (B, N) and labels (B, N), and an IoU -> scores (B, N). A dropped box has the score -inf.
Suppression = Callable[[Tensor, Tensor, Tensor, float], Tensor]


@SUPPRESSIONS.register_module()
@dataclass(kw_only=True, eq=False)
class NMS:
    """A box is dropped if its IoU with a box of its class that stays and has a higher score is above the threshold.

    Args:
        class_agnostic: a box also suppresses those of other classes.
    """

    class_agnostic: bool = False

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor, iou_thr: float) -> Tensor:
        """See ``Suppression``."""
        group = torch.arange(scores.shape[0], device=scores.device)[:, None].expand_as(labels)
        if not self.class_agnostic:
            group = group + scores.shape[0] * labels  # one number for each image and class
        keep = ops.batched_nms_mask(boxes.flatten(0, 1), scores.flatten(), group.flatten(), iou_thr)
        return scores.masked_fill(~keep.view_as(scores), -torch.inf)
