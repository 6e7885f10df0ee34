"""torchvision's fasterrcnn_resnet50_fpn_v2, with every rule of torchvision, for its COCO weights of box AP 46.7.

load_from = 'torchvision://fasterrcnn_resnet50_fpn_v2'

Beside faster_rcnn_r50_fpn.py the RPN has a second convolution, the box head has four convolutions and one fully
connected layer, and there are norms after the convolutions of the FPN and of the box head.
"""

_base_ = './faster_rcnn_r50_fpn.py'

norm = dict(type='FrozenBN')  # the statistics of COCO stay: a few images a batch are too few for others
model = dict(
    data_preprocessor=dict(
        mean=(123.675, 116.28, 103.53),  # of ImageNet, RGB, as for the training of torchvision's weights
        std=(58.395, 57.12, 57.375),
        bgr_to_rgb=True,
    ),
    backbone=dict(style='pytorch', norm=norm, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(norm=norm),
    rpn_head=dict(
        num_convs=2,
        anchor_generator=dict(round_to_pixels=True, strides_from_maps=True),
        loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9),
        normalizer='sampled',
        post_nms_train=2000,
        min_side=1e-3,
    ),
    roi_head=dict(
        roi_extractor=dict(sampling_ratio=2, aligned=False, eps_inside=0.0, eps_outside=1e-6),
        # 90 classes: COCO's category ids, of which ten are unused.
        bbox_head=dict(num_classes=90, num_convs=4, conv_channels=256, norm=norm, num_fcs=1),
        loss_bbox=dict(type='SmoothL1Loss', beta=1 / 9),
        min_side=1e-2,
    ),
)
