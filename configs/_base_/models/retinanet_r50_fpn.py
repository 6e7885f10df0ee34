"""RetinaNet, ResNet-50 and FPN, with every rule of detectron2's retinanet_R_50_FPN."""

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
        out_indices=(1, 2, 3),  # p2 has too many anchors
        init_cfg=dict(type='Pretrained', checkpoint='detectron2://ImageNetPretrained/MSRA/R-50.pkl'),
    ),
    neck=dict(
        type='FPN',
        in_channels=(512, 1024, 2048),
        out_channels=256,
        fuse_type='sum',
        last_level='p6p7_on_c5',
    ),
    bbox_head=dict(
        type='RetinaHead',
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        anchor_generator=dict(
            type='AnchorGenerator',
            strides=(8, 16, 32, 64, 128),
            sizes=(  # thirds of an octave: factors of 2 ** (1 / 3) and 2 ** (2 / 3)
                (32, 32 * 1.2599210498948732, 32 * 1.5874010519681994),
                (64, 64 * 1.2599210498948732, 64 * 1.5874010519681994),
                (128, 128 * 1.2599210498948732, 128 * 1.5874010519681994),
                (256, 256 * 1.2599210498948732, 256 * 1.5874010519681994),
                (512, 512 * 1.2599210498948732, 512 * 1.5874010519681994),
            ),
            ratios=(0.5, 1.0, 2.0),
        ),
        box_coder=dict(type='DeltaXYWHCoder', weights=(1.0, 1.0, 1.0, 1.0)),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, match_low_quality=True),
        loss_cls=dict(type='FocalLoss', alpha=0.25, gamma=2.0, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        normalizer='ema',
        score_thr=0.05,
        pre_nms=1000,
        clip_before_nms=False,
        nms_iou_thr=0.5,
        max_per_image=100,
    ),
)
