"""Cascade R-CNN, ResNet-50 and FPN, with every rule of detectron2's CascadeROIHeads: three stages, class-agnostic."""

_base_ = './faster_rcnn_r50_fpn.py'

model = dict(
    rpn_head=dict(post_nms_train=2000),
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=3,
        bbox_head=dict(class_agnostic=True),
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
