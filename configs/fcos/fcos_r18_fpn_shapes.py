"""FCOS R18-FPN on the drawn shapes, from random weights: minutes on two CPU cores, no download.

python tools/train.py configs/fcos/fcos_r18_fpn_shapes.py
"""

_base_ = '../retinanet/retinanet_r18_fpn_shapes.py'

model = dict(
    neck=dict(last_level='p6p7_on_p5'),
    bbox_head=dict(
        type='FCOSHead',
        conv_bias=True,
        anchor_generator=dict(sizes=((8,), (16,), (32,), (64,), (128,)), offset=0.5),
        box_coder=dict(_delete_=True, type='DistanceCoder'),
        # Half the distances for COCO: images are small.
        assigner=dict(_delete_=True, type='FCOSAssigner', center_radius=1.5, reach=(2.0, 4.0)),
        loss_bbox=dict(type='GIoULoss'),
        loss_centerness=dict(type='BinaryCrossEntropyLoss'),
        score_thr=0.1,
        nms_iou_thr=0.6,
    ),
)
