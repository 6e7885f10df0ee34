"""Faster R-CNN R18-FPN on the drawn shapes, from random weights: minutes on two CPU cores, no download.

python tools/train.py configs/quickstart/r18_fpn_shapes.py
"""

_base_ = [
    '../_base_/models/faster_rcnn_r50_fpn.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]

model = dict(
    backbone=dict(depth=18, style='pytorch', norm=dict(type='BN'), frozen_stages=-1, init_cfg=None),
    neck=dict(in_channels=(64, 128, 256, 512), out_channels=128, norm=dict(type='BN')),
    rpn_head=dict(
        in_channels=128, feat_channels=128, pre_nms_train=500, pre_nms_test=300, post_nms_train=300, post_nms_test=200
    ),
    roi_head=dict(
        bbox_head=dict(num_classes=6, in_channels=128, fc_channels=256),
        sampler=dict(num=64),
    ),
)
