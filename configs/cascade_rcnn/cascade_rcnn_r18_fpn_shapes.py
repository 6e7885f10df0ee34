"""A narrow Cascade R-CNN R18-FPN on the drawn shapes: AP 0.85 from random weights in minutes on two CPU cores.

python tools/train.py configs/cascade_rcnn/cascade_rcnn_r18_fpn_shapes.py
"""

_base_ = '../quickstart/demo.py'

model = dict(
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=3,
        box_coder=[
            dict(type='DeltaXYWHCoder', weights=(10.0, 10.0, 5.0, 5.0)),
            dict(type='DeltaXYWHCoder', weights=(20.0, 20.0, 10.0, 10.0)),
            dict(type='DeltaXYWHCoder', weights=(30.0, 30.0, 15.0, 15.0)),
        ],
        assigner=[
            dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False),
            dict(type='MaxIoUAssigner', pos_iou_thr=0.6, neg_iou_thr=0.6, match_low_quality=False),
            dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.7, match_low_quality=False),
        ],
        stage_loss_weights=(1.0, 1.0, 1.0),
        resample=False,
        drop_empty=True,
        scale_gradients=True,
        average='probabilities',
    ),
)
