"""A user's cascade (Cai and Vasconcelos 2018): every box head is trained on the boxes of the head before it.

frdet has a cascade of its own, ``CascadeRoIHead``, with more rules. This one shows how few lines a new head needs.
Shapes: B images, P proposals and S samples an image, K classes. The boxes of all heads are class-agnostic.
"""

import torch
from mmengine.model import BaseModule
from torch.nn import functional as F

from frdet.models.losses import box_loss
from frdet.models.task_modules import select_batch
from frdet.registry import ASSIGNERS, BBOX_HEADS, BOX_CODERS, LOSSES, ROI_EXTRACTORS, ROI_HEADS, SAMPLERS, build_parts
from frdet.structures import clip_boxes


@ROI_HEADS.register_module()
class MyCascade(BaseModule):
    """Box heads in a row, each with an assigner and a box coder of its own, in lists of one length."""

    parts = dict(
        roi_extractor=ROI_EXTRACTORS, bbox_heads=BBOX_HEADS, box_coders=BOX_CODERS, assigners=ASSIGNERS,
        sampler=SAMPLERS, loss_cls=LOSSES, loss_bbox=LOSSES,
    )  # fmt: skip
    stage_keys = {'score threshold': 'score_thr', 'class NMS': 'nms_iou_thr', 'detections cut': 'max_per_image'}

    def __init__(self, *, roi_extractor: dict, bbox_heads: list, box_coders: list, assigners: list, sampler: dict,
                 loss_cls: dict, loss_bbox: dict, loss_weights: list[float], score_thr: float, nms_iou_thr: float,
                 max_per_image: int):  # fmt: skip
        super().__init__()
        build_parts(
            self, roi_extractor=roi_extractor, bbox_heads=bbox_heads, box_coders=box_coders, assigners=assigners,
            sampler=sampler, loss_cls=loss_cls, loss_bbox=loss_bbox,
        )  # fmt: skip
        self.loss_weights = loss_weights
        self.selection = dict(score_thr=score_thr, nms_iou_thr=nms_iou_thr, num=max_per_image)

    def forward(self, features, boxes, stage):
        """Boxes (B, P, 4) -> class scores (B, P, K + 1), deltas (B, P, 4), and the boxes that these lead to."""
        image = torch.arange(boxes.shape[0], device=boxes.device)[:, None, None].expand(-1, boxes.shape[1], 1)
        pooled = self.roi_extractor(features, torch.cat([image, boxes], dim=2).flatten(0, 1))
        scores, deltas = (x.unflatten(0, boxes.shape[:2]) for x in self.bbox_heads[stage](pooled))
        deltas = deltas.squeeze(2)
        return scores, deltas, self.box_coders[stage].decode(boxes, deltas.detach())

    def loss(self, features, proposals, truth):
        """Losses of every head, ``s0.loss_cls`` and so on: the first on a sample of the proposals and the truth."""
        boxes = torch.cat([proposals.boxes, truth.boxes], dim=1)
        legal = torch.cat([proposals.valid, truth.valid], dim=1)
        losses = {}
        for stage, (weight, assigner) in enumerate(zip(self.loss_weights, self.assigners, strict=True)):
            assigned = assigner.assign_batch(boxes, truth)
            if stage == 0:
                sampled = self.sampler.sample_batch(assigned._replace(label=assigned.label.masked_fill(~legal, -1)))
                index, legal = sampled.index, sampled.valid
                boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
                assigned = type(assigned)(*(x.gather(1, index) for x in assigned))
            scores, deltas, refined = self(features, boxes, stage)
            positive = (assigned.label == 1) & legal
            labels = truth.labels.gather(1, assigned.gt_index).masked_fill(~positive, scores.shape[2] - 1)
            gt_boxes = truth.boxes.gather(1, assigned.gt_index[..., None].expand(-1, -1, 4))
            count = legal.sum().clamp(min=1)
            loss_cls = self.loss_cls(scores.flatten(0, 1), labels.flatten(), legal.flatten(), count)
            loss_bbox = box_loss(self.loss_bbox, self.box_coders[stage], deltas, boxes, gt_boxes, positive, count)
            losses |= {f's{stage}.loss_cls': weight * loss_cls, f's{stage}.loss_bbox': weight * loss_bbox}
            boxes = refined
        return losses

    def predict(self, features, proposals, image_sizes):
        """``Detections``: the boxes of the last head, with the mean of all heads' probabilities."""
        boxes, probabilities = proposals.boxes, []
        for stage in range(len(self.bbox_heads)):
            scores, _, refined = self(features, boxes, stage)
            boxes = clip_boxes(refined, image_sizes[:, None])
            probabilities.append(F.softmax(scores, dim=2)[..., :-1])
        mean = sum(probabilities) / len(probabilities)
        return select_batch(boxes[:, :, None], mean, proposals.valid, **self.selection)
