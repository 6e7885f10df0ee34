"""Ablation: Double-Head R-CNN (Wu et al. 2020) with MMDetection's layers and doubled losses of the second stage."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(
    roi_head=dict(
        bbox_head=dict(
            _delete_=True,
            type='DoubleConvFCBBoxHead',
            num_classes=80,
            in_channels=256,
            roi_size=7,
            fc_channels=1024,
            num_fcs=2,
            conv_channels=1024,
            num_convs=4,
            norm=dict(type='BN'),
            reg_roi_scale_factor=1.3,
        ),
        loss_cls=dict(loss_weight=2.0),
        loss_bbox=dict(loss_weight=2.0),
    ),
)
