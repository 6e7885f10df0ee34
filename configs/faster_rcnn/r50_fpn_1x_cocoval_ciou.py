"""Ablation: CIoU loss on the decoded boxes of the second stage, with weight 12 as in Zheng et al. 2020."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(roi_head=dict(loss_bbox=dict(type='CIoULoss', loss_weight=12.0)))
