"""torchvision's fasterrcnn_resnet50_fpn_v2, with every rule of torchvision, for its COCO weights of box AP 46.7.

load_from = 'torchvision://fasterrcnn_resnet50_fpn_v2'

Beside faster_rcnn_r50_fpn.py the RPN has a second convolution, the box head has four convolutions and one fully
connected layer, and there are norms after the convolutions of the FPN and of the box head.
"""

model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(
        type='DetPreprocessor',
        mean=(123.675, 116.28, 103.53),  # of ImageNet, RGB, as for the training of torchvision's weights
        std=(58.395, 57.12, 57.375),
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        style='pytorch',
        norm=dict(type='FrozenBN'),  # the statistics of COCO stay: a few images a batch are too few for others
        frozen_stages=1,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(
        type='FPN',
        in_channels=(256, 512, 1024, 2048),
        out_channels=256,
        norm=dict(type='FrozenBN'),
        fuse_type='sum',
        last_level='maxpool',
    ),
    rpn_head=dict(
        type='RPNHead',
        in_channels=256,
        feat_channels=256,
        num_convs=2,
        anchor_generator=dict(
            type='AnchorGenerator',
            strides=(4, 8, 16, 32, 64),
            sizes=((32,), (64,), (128,), (256,), (512,)),
            ratios=(0.5, 1.0, 2.0),
            round_to_pixels=True,
            strides_from_maps=True,
        ),
        box_coder=dict(type='DeltaXYWHCoder', weights=(1.0, 1.0, 1.0, 1.0)),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, match_low_quality=True),
        sampler=dict(type='RandomSampler', num=256, pos_fraction=0.5),
        loss_cls=dict(type='BinaryCrossEntropyLoss', loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9, loss_weight=1.0),
        normalizer='sampled',
        pre_nms_train=2000,
        pre_nms_test=1000,
        post_nms_train=2000,
        post_nms_test=1000,
        nms_iou_thr=0.7,
        min_side=1e-3,
    ),
    roi_head=dict(
        type='StandardRoIHead',
        roi_extractor=dict(
            type='MultiScaleRoIAlign',
            strides=(4, 8, 16, 32),
            output_size=7,
            sampling_ratio=2,
            aligned=False,
            eps_inside=0.0,
            eps_outside=1e-6,
        ),
        bbox_head=dict(
            type='FCBBoxHead',
            num_classes=90,  # COCO's category ids, of which ten are unused
            in_channels=256,
            roi_size=7,
            num_convs=4,
            conv_channels=256,
            norm=dict(type='FrozenBN'),
            fc_channels=1024,
            num_fcs=1,
        ),
        box_coder=dict(type='DeltaXYWHCoder', weights=(10.0, 10.0, 5.0, 5.0)),
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False),
        sampler=dict(type='RandomSampler', num=512, pos_fraction=0.25),
        loss_cls=dict(type='CrossEntropyLoss', loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9, loss_weight=1.0),
        add_gt_as_proposals=True,
        score_thr=0.05,
        nms_iou_thr=0.5,
        max_per_image=100,
        min_side=1e-2,
    ),
)
