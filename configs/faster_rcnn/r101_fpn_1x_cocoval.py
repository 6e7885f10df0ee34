"""Ablation: ResNet-101."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='detectron2://ImageNetPretrained/MSRA/R-101.pkl')),
)
