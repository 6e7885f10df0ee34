"""The rules of MMDetection 3's cascade-rcnn_r50_fpn_1x_coco, and its checkpoints. MMDetection states box AP 40.3.

python tools/test.py configs/interop/mmdet_cascade_rcnn_r50_fpn.py cascade_rcnn_r50_fpn_1x_coco_20200316-3dc56deb.pth
"""

_base_ = './mmdet_r50_fpn.py'

model = dict(
    rpn_head=dict(
        allowed_border=0, loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9), post_nms_train=2000
    ),
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=3,
        bbox_head=dict(class_agnostic=True),
        # The inverse of MMDetection's target_stds, which are rounded in the third stage.
        box_coder=[
            dict(type='DeltaXYWHCoder', weights=(1 / 0.1, 1 / 0.1, 1 / 0.2, 1 / 0.2), limit_shrinking=True),
            dict(type='DeltaXYWHCoder', weights=(1 / 0.05, 1 / 0.05, 1 / 0.1, 1 / 0.1), limit_shrinking=True),
            dict(type='DeltaXYWHCoder', weights=(1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067), limit_shrinking=True),
        ],
        assigner=[
            dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False),
            dict(type='MaxIoUAssigner', pos_iou_thr=0.6, neg_iou_thr=0.6, match_low_quality=False),
            dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.7, match_low_quality=False),
        ],
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0),
        stage_loss_weights=(1.0, 0.5, 0.25),
        resample=True,
        drop_empty=False,
        scale_gradients=False,
        average='logits',
    ),
)
