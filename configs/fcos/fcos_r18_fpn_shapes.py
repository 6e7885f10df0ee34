"""A narrow FCOS R18-FPN on the drawn shapes: AP 0.66 from random weights in minutes on two CPU cores.

python tools/train.py configs/fcos/fcos_r18_fpn_shapes.py
"""

_base_ = '../retinanet/retinanet_r18_fpn_shapes.py'

model = dict(
    bbox_head=dict(
        type='FCOSHead',
        conv_bias=True,
        anchor_generator=dict(sizes=((4,), (8,), (16,)), offset=0.5),
        box_coder=dict(_delete_=True, type='DistanceCoder'),
        # Half the distances for COCO: images are small.
        assigner=dict(_delete_=True, type='FCOSAssigner', center_radius=1.5, reach=(2.0, 4.0)),
        loss_bbox=dict(type='GIoULoss'),
        loss_centerness=dict(type='BinaryCrossEntropyLoss'),
        score_thr=0.05,
        nms_iou_thr=0.6,
    ),
)
