"""FCOS's rules without anchors to choose from: which cell is trained on which object, and boxes as distances.

An anchor is a square around its cell, as large as the stride of its level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from frdet.models.task_modules.targets import AssignResult, BaseAssigner
from frdet.registry import ASSIGNERS, BOX_CODERS
from frdet.structures import GroundTruth, box_area


@ASSIGNERS.register_module()
@dataclass(kw_only=True, eq=False)
class FCOSAssigner(BaseAssigner):
    """A cell is positive if it lies near the centre of an object whose size belongs to its level (FCOS, section 3).

    All of these must hold, with the size s of the anchor: the cell lies inside the ground truth; its distance to the
    centre, in x and in y, is below ``center_radius`` s; the largest distance to a side is between ``reach`` s. Of
    several such objects the smallest one is assigned. ``iou`` of the result is 0, because it decides nothing.

    Args:
        center_radius: in sizes of the anchor. The paper's first version had no such limit; infinity gives that.
        reach: smallest and largest distance, in sizes of the anchor. The finest level has no smallest one, and the
            coarsest level no largest one.
    """

    center_radius: float = 1.5
    reach: tuple[float, float] = (4.0, 8.0)

    def assign(self, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> AssignResult:
        """See ``BaseAssigner.assign``."""
        gt_boxes, gt_labels = F.pad(gt_boxes, (0, 0, 0, 1)), F.pad(gt_labels, (0, 1))  # the last one is no object
        valid = torch.arange(len(gt_labels), device=boxes.device) < len(gt_labels) - 1
        batch = self.assign_batch(boxes, GroundTruth(gt_boxes[None], gt_labels[None], valid[None]))
        return AssignResult(*(x[0] for x in batch))

    def assign_batch(self, boxes: Tensor, truth: GroundTruth) -> AssignResult:
        """See ``BaseAssigner.assign_batch``."""
        size = boxes[..., 2] - boxes[..., 0]
        least, most = (factor * size for factor in self.reach)
        least = least.masked_fill(size <= size.amin(dim=-1, keepdim=True), 0)
        most = most.masked_fill(size >= size.amax(dim=-1, keepdim=True), torch.inf)
        x, y = ((boxes[..., i] + boxes[..., i + 2])[..., None] / 2 for i in (0, 1))
        x1, y1, x2, y2 = truth.boxes[:, None].unbind(-1)  # (B, 1, G)
        off_centre = torch.maximum((x - (x1 + x2) / 2).abs(), (y - (y1 + y2) / 2).abs())
        near = torch.minimum(torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y))
        far = torch.maximum(torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y))
        fits = (near > 0) & (off_centre < self.center_radius * size[..., None]) & truth.valid[:, None]
        fits &= (far > least[..., None]) & (far < most[..., None])
        area, gt_index = torch.where(fits, box_area(truth.boxes)[:, None], torch.inf).min(dim=-1)
        return AssignResult((area < torch.inf).long(), gt_index, torch.zeros_like(area))


@BOX_CODERS.register_module()
@dataclass(kw_only=True, eq=False)
class DistanceCoder:
    """Distances (left, top, right, bottom) from a box's centre to the sides of another, in sizes of the first.

    FCOS, equation 1, with the stride as the unit of each level.
    """

    def encode(self, boxes: Tensor, targets: Tensor) -> Tensor:
        """Distances (..., 4) that take ``boxes`` (..., 4) to ``targets`` (..., 4)."""
        centre, size = self._centre_size(boxes)
        return torch.cat([centre - targets[..., :2], targets[..., 2:] - centre], dim=-1) / size

    def decode(self, boxes: Tensor, distances: Tensor) -> Tensor:
        """Boxes (..., 4) with sides at ``distances`` (..., 4) from the centres of ``boxes``."""
        centre, size = self._centre_size(boxes)
        left_top, right_bottom = (distances * size).split(2, dim=-1)
        return torch.cat([centre - left_top, centre + right_bottom], dim=-1)

    @staticmethod
    def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
        size = boxes[..., 2:] - boxes[..., :2]
        return (boxes[..., :2] + boxes[..., 2:]) / 2, torch.cat([size, size], dim=-1)
