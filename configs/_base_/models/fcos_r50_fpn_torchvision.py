"""torchvision's fcos_resnet50_fpn, with every rule of torchvision, for its COCO weights of box AP 39.2.

load_from = 'torchvision://fcos_resnet50_fpn'
"""

_base_ = './fcos_r50_fpn.py'

model = dict(
    data_preprocessor=dict(
        mean=(123.675, 116.28, 103.53),  # of ImageNet, RGB, as for the training of torchvision's weights
        std=(58.395, 57.12, 57.375),
        bgr_to_rgb=True,
    ),
    backbone=dict(style='pytorch', init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    bbox_head=dict(
        num_classes=90,  # COCO's category ids, of which ten are unused
        anchor_generator=dict(offset=0.0, round_to_pixels=True, strides_from_maps=True),
        normalizer='batch',
        clip_before_nms=True,
    ),
)
