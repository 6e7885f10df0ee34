"""A user's cascade of two box heads on the drawn shapes.

PYTHONPATH=docs/examples/cascade python tools/train.py docs/examples/cascade/cascade_shapes.py
"""

_base_ = '../../../configs/quickstart/r18_fpn_shapes.py'

custom_imports = dict(imports=['cascade'])

single = _base_.model.roi_head
model = dict(
    roi_head=dict(
        _delete_=True,
        type='MyCascade',
        roi_extractor=single.roi_extractor,
        bbox_heads=[dict(single.bbox_head, num_classes=None)] * 2,
        box_coders=[
            dict(type='DeltaXYWHCoder', weights=(10.0, 10.0, 5.0, 5.0)),
            dict(type='DeltaXYWHCoder', weights=(20.0, 20.0, 10.0, 10.0)),
        ],
        assigners=[
            dict(type='MaxIoUAssigner', pos_iou_thr=thr, neg_iou_thr=thr, match_low_quality=False) for thr in (0.5, 0.6)
        ],
        sampler=single.sampler,
        loss_cls=single.loss_cls,
        loss_bbox=single.loss_bbox,
        loss_weights=[1.0, 0.5],
        score_thr=0.05,
        nms_iou_thr=0.5,
        max_per_image=100,
    ),
)
