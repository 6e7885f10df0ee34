"""The rules of MMDetection 3's cascade-rcnn_r50_fpn_1x_coco, and its checkpoints. MMDetection states box AP 40.3.

python tools/test.py configs/interop/mmdet_cascade_rcnn_r50_fpn.py cascade_rcnn_r50_fpn_1x_coco_20200316-3dc56deb.pth
"""

_base_ = './mmdet_r50_fpn.py'

single = _base_.model.roi_head
model = dict(
    rpn_head=dict(
        allowed_border=0, loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9), post_nms_train=2000
    ),
    roi_head=dict(
        _delete_=True,
        type='CascadeRoIHead',
        num_stages=3,
        roi_extractor=single.roi_extractor,
        bbox_head=dict(single.bbox_head, class_agnostic=True),
        # The inverse of MMDetection's target_stds, which are rounded in the third stage.
        box_coder=[
            dict(single.box_coder, weights=(1 / 0.1, 1 / 0.1, 1 / 0.2, 1 / 0.2)),
            dict(single.box_coder, weights=(1 / 0.05, 1 / 0.05, 1 / 0.1, 1 / 0.1)),
            dict(single.box_coder, weights=(1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067)),
        ],
        assigner=[dict(single.assigner, pos_iou_thr=iou, neg_iou_thr=iou) for iou in (0.5, 0.6, 0.7)],
        sampler=single.sampler,
        loss_cls=single.loss_cls,
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0),
        stage_loss_weights=(1.0, 0.5, 0.25),
        add_gt_as_proposals=True,
        resample=True,
        drop_empty=False,
        scale_gradients=False,
        average='logits',
        score_thr=0.05,
        nms_iou_thr=0.5,
        max_per_image=100,
        min_side=0.0,
    ),
)
