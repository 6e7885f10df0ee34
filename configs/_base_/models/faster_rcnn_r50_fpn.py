"""Faster R-CNN, ResNet-50 and FPN, with every rule of detectron2's faster_rcnn_R_50_FPN."""

model = dict(
    type='FasterRCNN',
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
        init_cfg=dict(type='Pretrained', checkpoint='detectron2://ImageNetPretrained/MSRA/R-50.pkl'),
    ),
    neck=dict(
        type='FPN',
        in_channels=(256, 512, 1024, 2048),
        out_channels=256,
        fuse_type='sum',
        last_level='maxpool',
    ),
    rpn_head=dict(
        type='RPNHead',
        in_channels=256,
        feat_channels=256,
        anchor_generator=dict(
            type='AnchorGenerator',
            strides=(4, 8, 16, 32, 64),
            sizes=((32,), (64,), (128,), (256,), (512,)),
            ratios=(0.5, 1.0, 2.0),
        ),
        box_coder=dict(type='DeltaXYWHCoder', weights=(1.0, 1.0, 1.0, 1.0)),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, match_low_quality=True),
        sampler=dict(type='RandomSampler', num=256, pos_fraction=0.5),
        loss_cls=dict(type='BinaryCrossEntropyLoss', loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        normalizer='quota',
        pre_nms_train=2000,
        pre_nms_test=1000,
        post_nms_train=1000,
        post_nms_test=1000,
        nms_iou_thr=0.7,
    ),
    roi_head=dict(
        type='StandardRoIHead',
        roi_extractor=dict(
            type='MultiScaleRoIAlign', strides=(4, 8, 16, 32), output_size=7, sampling_ratio=0, aligned=True
        ),
        bbox_head=dict(type='FCBBoxHead', num_classes=80, in_channels=256, roi_size=7, fc_channels=1024, num_fcs=2),
        box_coder=dict(type='DeltaXYWHCoder', weights=(10.0, 10.0, 5.0, 5.0)),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False),
        sampler=dict(type='RandomSampler', num=512, pos_fraction=0.25),
        loss_cls=dict(type='CrossEntropyLoss', loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        add_gt_as_proposals=True,
        score_thr=0.05,
        nms_iou_thr=0.5,
        max_per_image=100,
    ),
)
