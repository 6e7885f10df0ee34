"""Components of a user: each is registered by its decorator and named in ``my_config.py``."""

import numpy as np
import torch
from mmengine.hooks import Hook
from torch import nn

from frdet.models.losses import Loss
from frdet.models.roi_heads import StandardRoIHead
from frdet.models.task_modules import AssignResult, BaseAssigner, BaseSampler
from frdet.registry import ASSIGNERS, BACKBONES, HOOKS, LOSSES, NECKS, ROI_HEADS, SAMPLERS, TRANSFORMS
from frdet.structures import box_iou, clip_boxes


@BACKBONES.register_module()
class TinyNet(nn.Module):
    """Four strided convolutions: maps of strides 4, 8, 16 and 32."""

    def __init__(self, *, channels: int):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 7, stride=2, padding=3), nn.GroupNorm(4, channels))
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, stride=2, padding=1), nn.GroupNorm(4, channels), nn.ReLU())
            for _ in range(4)
        )

    def forward(self, x):
        x = self.stem(x).relu()
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)


@NECKS.register_module()
class LateralNeck(nn.Module):
    """A 1x1 convolution on every map, and one more map by pooling: FPN without its top-down path."""

    def __init__(self, *, in_channels: int, out_channels: int):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in range(4))

    def forward(self, features):
        maps = [conv(feature) for conv, feature in zip(self.convs, features, strict=True)]
        return (*maps, nn.functional.max_pool2d(maps[-1], 1, stride=2))


@ROI_HEADS.register_module()
class IterativeRoIHead(StandardRoIHead):
    """At test time, refine every proposal ``rounds`` times before it is classified."""

    def __init__(self, *, rounds: int, **kwargs):
        super().__init__(**kwargs)
        self.rounds = rounds

    def predict(self, features, proposals, image_sizes):
        boxes = proposals.boxes
        batch, count = boxes.shape[:2]
        image = torch.arange(batch, device=boxes.device).repeat_interleave(count)[:, None]
        for _ in range(self.rounds):
            rois = torch.cat([image, boxes.flatten(0, 1)], dim=1)
            scores, deltas = self(features, rois)
            best = scores[:, :-1].argmax(dim=1)
            moved = self.box_coder.decode(rois[:, 1:], deltas[torch.arange(len(rois)), best])
            boxes = clip_boxes(moved.view(batch, count, 4), image_sizes[:, None])
        return super().predict(features, proposals._replace(boxes=boxes), image_sizes)


@ASSIGNERS.register_module()
class TopKAssigner(BaseAssigner):
    """The ``k`` boxes that overlap a ground truth most are its positives."""

    def __init__(self, *, k: int):
        self.k = k

    def assign(self, boxes, gt_boxes, gt_labels):
        label = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        if len(gt_boxes) == 0:
            return AssignResult(label, label.clone(), boxes[:, 0] * 0)
        iou = box_iou(boxes, gt_boxes)
        label[iou.topk(min(self.k, len(boxes)), dim=0).indices.flatten()] = 1
        best, gt_index = iou.max(dim=1)
        return AssignResult(label, gt_index, best)


@SAMPLERS.register_module()
class EvenSampler(BaseSampler):
    """As many negatives as positives, and one negative at least."""

    def sample(self, assigned):
        positive = torch.nonzero(assigned.label == 1).flatten()[: int(self.num * self.pos_fraction)]
        negative = torch.nonzero(assigned.label == 0).flatten()
        chosen = torch.randperm(len(negative), device=negative.device)[: max(1, len(positive))]
        return positive, negative[chosen]


@LOSSES.register_module()
class LogCoshLoss(Loss):
    """log(cosh(difference)): a square near 0, a line far from it."""

    def elementwise(self, pred, target):
        return torch.log(torch.cosh((pred - target).clamp(-20, 20))).sum(dim=-1)


@TRANSFORMS.register_module()
class RandomGrey:
    """Drop the colours of an image with probability ``prob``."""

    def __init__(self, *, prob: float):
        self.prob = prob

    def __call__(self, results):
        if np.random.rand() < self.prob:
            grey = results['img'].mean(axis=2, keepdims=True)
            results['img'] = grey.repeat(3, axis=2).astype(np.uint8)
        return results


@HOOKS.register_module()
class WeightNormHook(Hook):
    """Write the length of the vector of all weights to the log."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        norm = sum(p.detach().square().sum() for p in runner.model.parameters()).sqrt()
        runner.message_hub.update_scalar('train/weight_norm', norm.item())
