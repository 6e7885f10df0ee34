"""The rules of detectron2's Misc/cascade_mask_rcnn_R_50_FPN_1x without its masks, and checkpoints of such a model.

python tools/test.py configs/interop/detectron2_cascade_rcnn_r50_fpn.py model_final.pth

Every point where the projects differ is set here. The values equal those of the base, because frdet follows detectron2.
"""

_base_ = './detectron2_r50_fpn.py'

model = dict(
    rpn_head=dict(allowed_border=None, post_nms_train=2000),
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
