"""Two detectors of a user: one stage on anchors, and two box heads in a list.

Shapes: B images, N anchors an image, P proposals, K classes.
"""

import torch
from mmengine.model import BaseModule
from torch import nn

from frdet.models.detectors import Detector
from frdet.models.task_modules import select_batch
from frdet.registry import (
    ANCHOR_GENERATORS,
    ASSIGNERS,
    BBOX_HEADS,
    DENSE_HEADS,
    DETECTORS,
    LOSSES,
    ROI_EXTRACTORS,
    ROI_HEADS,
    build_parts,
)


@DENSE_HEADS.register_module(force=True)
class AnchorClassifier(BaseModule):
    """Scores of K classes for every anchor; the anchors are the boxes."""

    parts = dict(anchor_generator=ANCHOR_GENERATORS, assigner=ASSIGNERS, loss_cls=LOSSES)
    class_layers = ('fc',)

    def __init__(self, *, num_classes, channels, anchor_generator, assigner, loss_cls):
        super().__init__()
        build_parts(self, anchor_generator=anchor_generator, assigner=assigner, loss_cls=loss_cls)
        self.num_classes = num_classes
        self.tower = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())
        self.fc = nn.Conv2d(channels, num_classes * self.anchor_generator.num_anchors, 1)

    def forward(self, features):
        scores = [self.fc(self.tower(f)).permute(0, 2, 3, 1).reshape(len(f), -1, self.num_classes) for f in features]
        return scores, [s.new_zeros(*s.shape[:2], 4) for s in scores]

    def anchors(self, features):
        return torch.cat(self.anchor_generator.grid([f.shape[2:] for f in features], features[0].device))

    def loss(self, features, truth):
        scores = torch.cat(self(features)[0], dim=1)
        assigned = self.assigner.assign_batch(self.anchors(features), truth)
        positive, counted = assigned.label == 1, assigned.label >= 0
        labels = truth.labels.gather(1, assigned.gt_index)
        target = (labels[..., None] == torch.arange(self.num_classes)) & positive[..., None]
        return {
            'loss_cls': self.loss_cls(scores, target, counted[..., None], positive.sum().clamp(min=1)),
            'num_pos': positive.sum() / len(scores),
        }

    def predict(self, features):
        scores = torch.cat(self(features)[0], dim=1).sigmoid()
        boxes = self.anchors(features)[None, :, None].expand(len(scores), -1, -1, -1)
        valid = torch.ones_like(scores[..., 0], dtype=torch.bool)
        return select_batch(boxes, scores, valid, score_thr=0.05, nms_iou_thr=0.5, num=10)


@DETECTORS.register_module(name='OneStageOfAnchors', force=True)  # OneStage is in docs/examples/retina
class OneStage(Detector):
    """A backbone and a head."""

    parts = dict(head=DENSE_HEADS)

    def __init__(self, *, head, **kwargs):
        super().__init__(**kwargs)
        build_parts(self, head=head)

    def losses(self, features, truth, image_sizes):
        return self.head.loss(features, truth)

    def detect(self, features, image_sizes):
        return self.head.predict(features)


@ROI_HEADS.register_module(force=True)
class HeadsInAList(BaseModule):
    """Box heads that all take the proposals for background."""

    parts = dict(roi_extractor=ROI_EXTRACTORS, bbox_heads=BBOX_HEADS, loss_cls=LOSSES)

    def __init__(self, *, roi_extractor, bbox_heads, loss_cls):
        super().__init__()
        build_parts(self, roi_extractor=roi_extractor, bbox_heads=bbox_heads, loss_cls=loss_cls)

    def forward(self, features, proposals):
        image = torch.arange(len(proposals.boxes), device=proposals.boxes.device).repeat_interleave(
            proposals.boxes.shape[1]
        )
        rois = torch.cat([image[:, None].to(proposals.boxes), proposals.boxes.flatten(0, 1)], dim=1)
        pooled = self.roi_extractor(features, rois)
        return [head(pooled)[0] for head in self.bbox_heads]

    def loss(self, features, proposals, truth):
        valid = proposals.valid.flatten()
        return {
            f's{i}.loss_cls': 0.5 * self.loss_cls(s, torch.full_like(s[:, 0], s.shape[1] - 1).long(), valid, 10.0)
            for i, s in enumerate(self(features, proposals))
        }

    def predict(self, features, proposals, image_sizes):
        scores = sum(s.softmax(dim=1)[:, :-1] for s in self(features, proposals)).unflatten(0, proposals.valid.shape)
        boxes = proposals.boxes[:, :, None]
        return select_batch(boxes, scores, proposals.valid, score_thr=0.05, nms_iou_thr=0.5, num=10)


def one_stage(cfg):
    """The config ``cfg`` of the quickstart with the one-stage detector: anchors of 32 pixels on layer3 and layer4."""
    model = cfg.model.to_dict()
    cfg.model = dict(
        type='OneStageOfAnchors',
        data_preprocessor=model['data_preprocessor'],
        backbone=model['backbone'],
        neck=dict(type='FPN', in_features=(2, 3), in_channels=model['neck']['in_channels'], out_channels=8),
        head=dict(
            type='AnchorClassifier',
            num_classes=None,
            channels=8,
            anchor_generator=dict(
                type='AnchorGenerator', strides=(16, 32, 64), sizes=((32,), (64,), (128,)), ratios=(1.0,)
            ),
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, match_low_quality=False),
            loss_cls=dict(type='FocalLoss'),
        ),
    )
    return cfg


def cascade(cfg):
    """The config ``cfg`` of the quickstart with two box heads."""
    old = cfg.model.roi_head.to_dict()
    head = dict(old['bbox_head'], num_classes=None, fc_channels=16)
    cfg.model.roi_head = dict(
        type='HeadsInAList', roi_extractor=old['roi_extractor'], bbox_heads=[head, dict(head)], loss_cls=old['loss_cls']
    )
    return cfg
