"""Ablation: IoU loss on the decoded boxes of the second stage, -log(IoU) with weight 10 as in MMDetection."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(roi_head=dict(loss_bbox=dict(type='IoULoss', mode='log', loss_weight=10.0)))
