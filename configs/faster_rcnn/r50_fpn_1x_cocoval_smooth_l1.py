"""Ablation: smooth L1 on the boxes of both stages, with the paper's turning points."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(
    rpn_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9)),
    roi_head=dict(loss_bbox=dict(type='SmoothL1Loss', beta=1.0)),
)
