"""Ablation: GIoU loss on the decoded boxes of the second stage, with weight 10 as in Rezatofighi et al. 2019."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(roi_head=dict(loss_bbox=dict(type='GIoULoss', loss_weight=10.0)))
