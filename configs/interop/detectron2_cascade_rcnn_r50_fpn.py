"""The rules of detectron2's Misc/cascade_mask_rcnn_R_50_FPN_1x without its masks, and checkpoints of such a model.

python tools/test.py configs/interop/detectron2_cascade_rcnn_r50_fpn.py model_final.pth

Every point where the projects differ is set here. The values equal those of the base, because frdet follows detectron2.
"""

_base_ = './detectron2_r50_fpn.py'

single = _base_.model.roi_head
model = dict(
    rpn_head=dict(allowed_border=None, post_nms_train=2000),
    roi_head=dict(
        _delete_=True,
        type='CascadeRoIHead',
        num_stages=3,
        roi_extractor=single.roi_extractor,
        bbox_head=dict(single.bbox_head, class_agnostic=True),
        box_coder=[
            dict(single.box_coder, weights=(10.0, 10.0, 5.0, 5.0)),
            dict(single.box_coder, weights=(20.0, 20.0, 10.0, 10.0)),
            dict(single.box_coder, weights=(30.0, 30.0, 15.0, 15.0)),
        ],
        assigner=[dict(single.assigner, pos_iou_thr=iou, neg_iou_thr=iou) for iou in (0.5, 0.6, 0.7)],
        sampler=single.sampler,
        loss_cls=single.loss_cls,
        loss_bbox=single.loss_bbox,
        stage_loss_weights=(1.0, 1.0, 1.0),
        add_gt_as_proposals=True,
        resample=False,
        drop_empty=True,
        scale_gradients=True,
        average='probabilities',
        score_thr=0.05,
        nms_iou_thr=0.5,
        max_per_image=100,
        min_side=0.0,
    ),
)
