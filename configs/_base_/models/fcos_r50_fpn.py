"""FCOS, ResNet-50 and FPN, with every rule of detectron2's fcos_R_50_FPN."""

model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetPreprocessor',
        mean=(103.53, 116.28, 123.675),  # of ImageNet, BGR, as for the training of MSRA's weights
        std=(1.0, 1.0, 1.0),
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        style='caffe',
        norm=dict(type='FrozenBN'),
        frozen_stages=1,
        out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='detectron2://ImageNetPretrained/MSRA/R-50.pkl'),
    ),
    neck=dict(
        type='FPN',
        in_channels=(512, 1024, 2048),
        out_channels=256,
        fuse_type='sum',
        last_level='p6p7_on_p5',
    ),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        norm=dict(type='GN', num_groups=32),
        conv_bias=True,
        anchor_generator=dict(
            type='AnchorGenerator',
            strides=(8, 16, 32, 64, 128),
            sizes=((8,), (16,), (32,), (64,), (128,)),  # those of the strides
            ratios=(1.0,),
            offset=0.5,  # the cell's middle
        ),
        box_coder=dict(type='DistanceCoder'),
        assigner=dict(type='FCOSAssigner', center_radius=1.5, reach=(4.0, 8.0)),
        loss_cls=dict(type='FocalLoss', alpha=0.25, gamma=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(type='BinaryCrossEntropyLoss', loss_weight=1.0),
        normalizer='ema',
        ema_start=300.0,
        score_thr=0.2,
        pre_nms=1000,
        clip_before_nms=False,
        nms_iou_thr=0.6,
        max_per_image=100,
    ),
)
