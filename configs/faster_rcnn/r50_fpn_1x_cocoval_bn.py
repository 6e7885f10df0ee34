"""Ablation: torchvision's ResNet-50 (stride in the 3x3, RGB). Weight and bias of its BatchNorm are trained."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(
    data_preprocessor=dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), bgr_to_rgb=True),
    backbone=dict(
        style='pytorch',
        norm=dict(type='BN'),
        norm_eval=True,
        init_cfg=dict(checkpoint='torchvision://resnet50'),
    ),
)
