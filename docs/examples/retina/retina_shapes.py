"""The one-stage detector on the drawn shapes.

PYTHONPATH=docs/examples/retina python tools/train.py docs/examples/retina/retina_shapes.py
"""

_base_ = '../../../configs/quickstart/r18_fpn_shapes.py'

custom_imports = dict(imports=['retina'])

model = dict(
    _delete_=True,
    type='OneStage',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    neck=dict(type='FPN', in_features=(1, 2, 3), out_channels=64, norm=_base_.norm, last_level='p6p7_on_p5'),
    head=dict(
        type='MyRetinaHead',
        num_classes=None,
        in_channels=64,
        num_convs=2,
        anchor_generator=dict(
            type='AnchorGenerator',
            strides=(8, 16, 32, 64, 128),
            sizes=[[2 * stride * 2 ** (third / 3) for third in range(3)] for stride in (8, 16, 32, 64, 128)],
            ratios=(0.5, 1.0, 2.0),
        ),
        box_coder=dict(type='DeltaXYWHCoder'),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, match_low_quality=True),
        loss_cls=dict(type='FocalLoss'),
        loss_bbox=dict(type='L1Loss'),
        score_thr=0.05,
        pre_nms=300,
        nms_iou_thr=0.5,
        max_per_image=100,
    ),
)
