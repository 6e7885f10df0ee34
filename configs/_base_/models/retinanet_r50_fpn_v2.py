"""torchvision's retinanet_resnet50_fpn_v2, with every rule of torchvision, for its COCO weights of box AP 41.5.

load_from = 'torchvision://retinanet_resnet50_fpn_v2'

Beside retinanet_r50_fpn.py there are norms in the towers, and the loss of boxes is GIoU.
"""

_base_ = './retinanet_r50_fpn.py'

model = dict(
    data_preprocessor=dict(
        mean=(123.675, 116.28, 103.53),  # of ImageNet, RGB, as for the training of torchvision's weights
        std=(58.395, 57.12, 57.375),
        bgr_to_rgb=True,
    ),
    backbone=dict(style='pytorch', init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    bbox_head=dict(
        num_classes=90,  # COCO's category ids, of which ten are unused
        norm=dict(type='GN', num_groups=32),
        conv_bias=False,
        anchor_generator=dict(
            sizes=((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812)),
            round_to_pixels=True,
            strides_from_maps=True,
        ),
        loss_bbox=dict(_delete_=True, type='GIoULoss'),
        normalizer='image',
        clip_before_nms=True,
        max_per_image=300,
    ),
)
