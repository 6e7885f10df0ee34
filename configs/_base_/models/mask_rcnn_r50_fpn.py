"""Mask R-CNN, ResNet-50 and FPN, with every rule of detectron2's mask_rcnn_R_50_FPN and masks as bitmaps."""

_base_ = './faster_rcnn_r50_fpn.py'

model = dict(
    roi_head=dict(
        mask_head=dict(
            type='FCNMaskHead',
            roi_extractor=dict(
                type='MultiScaleRoIAlign', strides=(4, 8, 16, 32), output_size=14, sampling_ratio=0, aligned=True
            ),
            num_classes=80,
            in_channels=256,
            num_convs=4,
            conv_channels=256,
            loss_mask=dict(type='BinaryCrossEntropyLoss', loss_weight=1.0),
            soft_targets=False,
            aligned_targets=True,
            mask_thr_binary=0.5,
            paste='detectron2',
        ),
    ),
)
