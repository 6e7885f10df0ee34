"""Cascade R-CNN R18-FPN on the drawn shapes, from random weights: minutes on two CPU cores, no download.

python tools/train.py configs/cascade_rcnn/cascade_rcnn_r18_fpn_shapes.py
"""

_base_ = '../quickstart/r18_fpn_shapes.py'

single = _base_.model.roi_head
iou_thr = (0.5, 0.6, 0.7)
model = dict(
    roi_head=dict(
        _delete_=True,
        type='CascadeRoIHead',
        num_stages=3,
        roi_extractor=single.roi_extractor,
        bbox_head=single.bbox_head,
        box_coder=[dict(single.box_coder, weights=(10.0 * i, 10.0 * i, 5.0 * i, 5.0 * i)) for i in (1, 2, 3)],
        assigner=[dict(single.assigner, pos_iou_thr=iou, neg_iou_thr=iou) for iou in iou_thr],
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
    ),
)
