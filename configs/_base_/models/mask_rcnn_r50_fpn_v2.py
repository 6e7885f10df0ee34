"""torchvision's maskrcnn_resnet50_fpn_v2, with every rule of torchvision, for its COCO weights of mask AP 41.8.

load_from = 'torchvision://maskrcnn_resnet50_fpn_v2'
"""

_base_ = './faster_rcnn_r50_fpn_v2.py'

model = dict(
    roi_head=dict(
        mask_head=dict(
            type='FCNMaskHead',
            roi_extractor=dict(
                type='MultiScaleRoIAlign',
                strides=(4, 8, 16, 32),
                output_size=14,
                sampling_ratio=2,
                aligned=False,
                eps_inside=0.0,
                eps_outside=1e-6,
            ),
            num_classes=90,
            in_channels=256,
            num_convs=4,
            conv_channels=256,
            norm=dict(type='FrozenBN'),
            loss_mask=dict(type='BinaryCrossEntropyLoss'),
            soft_targets=True,
            aligned_targets=False,
            mask_thr_binary=0.5,
            paste='torchvision',
        ),
    ),
)
