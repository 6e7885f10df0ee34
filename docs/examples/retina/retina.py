"""A one-stage detector of a user, in the manner of RetinaNet (Lin et al. 2017): a head on anchors, and the detector.

Shapes: B images, A anchors a cell, N anchors an image over all levels in (level, H, W, A) order, K classes.
"""

import math

import torch
from mmengine.model import BaseModule
from torch import nn

from frdet.models.detectors import Detector
from frdet.models.losses import box_loss
from frdet.models.task_modules import best_scores, select_batch
from frdet.registry import ANCHOR_GENERATORS, ASSIGNERS, BOX_CODERS, DENSE_HEADS, DETECTORS, LOSSES, build_parts
from frdet.structures import clip_boxes


@DENSE_HEADS.register_module()
class MyRetinaHead(BaseModule):
    """K class scores and a box for every anchor, from two towers of convolutions that all levels share.

    Args:
        num_classes: K; None in a config is the number of the data set's classes.
        in_channels: channels of the feature maps, and of the towers.
        num_convs: 3x3 convolutions of each tower.
        anchor_generator, box_coder, assigner: the parts, configs or built.
        loss_cls: on K logits of every anchor; called with 0 or 1 for each.
        loss_bbox: on the boxes of positive anchors.
        score_thr: detections need a score above this.
        pre_nms: best anchors a level that enter NMS.
        nms_iou_thr: NMS threshold within a class.
        max_per_image: detections kept an image.
    """

    parts = dict(
        anchor_generator=ANCHOR_GENERATORS, box_coder=BOX_CODERS, assigner=ASSIGNERS, loss_cls=LOSSES, loss_bbox=LOSSES
    )
    class_layers = ('retina_cls',)  # fine-tuning on other classes starts them anew
    stage_keys = {'anchor top-k': 'pre_nms', 'score threshold': 'score_thr', 'class NMS': 'nms_iou_thr',
                  'detections cut': 'max_per_image'}  # fmt: skip

    def __init__(
        self,
        *,
        num_classes: int | None,
        in_channels: int,
        num_convs: int,
        anchor_generator: dict,
        box_coder: dict,
        assigner: dict,
        loss_cls: dict,
        loss_bbox: dict,
        score_thr: float,
        pre_nms: int,
        nms_iou_thr: float,
        max_per_image: int,
    ):
        super().__init__()
        build_parts(
            self, anchor_generator=anchor_generator, box_coder=box_coder, assigner=assigner, loss_cls=loss_cls,
            loss_bbox=loss_bbox,
        )  # fmt: skip
        self.num_classes = num_classes
        self.score_thr = score_thr
        self.pre_nms = pre_nms
        self.nms_iou_thr = nms_iou_thr
        self.max_per_image = max_per_image
        num_anchors = self.anchor_generator.num_anchors
        self.cls_convs, self.reg_convs = (
            nn.Sequential(*(nn.Conv2d(in_channels, in_channels, 3, padding=1) for _ in range(num_convs)))
            for _ in range(2)
        )
        self.retina_cls = nn.Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        for layer in (*self.cls_convs, *self.reg_convs):
            nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')
            nn.init.zeros_(layer.bias)
        for layer in (self.retina_cls, self.retina_reg):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.retina_cls.bias, -math.log(99))  # a score of 0.01 at first: most anchors are background

    def forward(self, features):
        """L feature maps (B, C, H_l, W_l) -> L logits (B, H_l * W_l * A, K) and L deltas (B, H_l * W_l * A, 4)."""
        logits, deltas = [], []
        for feature in features:
            for out, convs, last, size in (
                (logits, self.cls_convs, self.retina_cls, self.num_classes),
                (deltas, self.reg_convs, self.retina_reg, 4),
            ):
                hidden = feature
                for conv in convs:
                    hidden = conv(hidden).relu()
                out.append(last(hidden).permute(0, 2, 3, 1).reshape(hidden.shape[0], -1, size).float())
        return logits, deltas

    def loss(self, features, truth):
        """Losses on all anchors; ``truth`` is the padded ground truth of the batch."""
        logits, deltas = (torch.cat(levels, dim=1) for levels in self(features))
        anchors = torch.cat(self._anchors(features))
        assigned = self.assigner.assign_batch(anchors, truth)
        positive, counts = assigned.label == 1, assigned.label >= 0  # -1 is ignored
        classes = torch.arange(self.num_classes, device=logits.device)
        target = (truth.labels.gather(1, assigned.gt_index)[..., None] == classes) & positive[..., None]
        gt_boxes = truth.boxes.gather(1, assigned.gt_index[..., None].expand(-1, -1, 4))
        num_positive = positive.sum().clamp(min=1)
        return {
            'loss_cls': self.loss_cls(logits, target, counts[..., None], num_positive),
            'loss_bbox': box_loss(
                self.loss_bbox, self.box_coder, deltas, anchors.expand_as(deltas), gt_boxes, positive, num_positive
            ),
            'num_pos': positive.sum() / len(logits),  # no loss in its name: only logged
        }

    def predict(self, features, image_sizes):
        """``Detections`` of a batch: the shapes do not depend on how many objects there are."""
        boxes, scores, valid = [], [], []
        for anchors, logits, deltas in zip(self._anchors(features), *self(features), strict=True):
            best, index = best_scores(logits.amax(dim=2), self.pre_nms)
            chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(self.box_coder.decode(anchors[index], chosen))
            scores.append(logits.gather(1, index[..., None].expand(-1, -1, self.num_classes)).sigmoid())
            valid.append(best > -torch.inf)
        clipped = clip_boxes(torch.cat(boxes, dim=1), image_sizes[:, None])
        return select_batch(
            clipped[:, :, None], torch.cat(scores, dim=1), torch.cat(valid, dim=1),
            score_thr=self.score_thr, nms_iou_thr=self.nms_iou_thr, num=self.max_per_image,
        )  # fmt: skip

    def _anchors(self, features):
        return self.anchor_generator.grid([f.shape[2:] for f in features], features[0].device)


@DETECTORS.register_module()
class OneStage(Detector):
    """Backbone, neck and one head."""

    parts = dict(head=DENSE_HEADS)

    def __init__(self, *, head: dict, **kwargs):
        super().__init__(**kwargs)
        build_parts(self, head=head)

    def losses(self, features, truth, image_sizes):
        return self.head.loss(features, truth)

    def detect(self, features, image_sizes):
        return self.head.predict(features, image_sizes)
