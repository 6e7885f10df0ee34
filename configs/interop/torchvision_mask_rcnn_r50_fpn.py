"""The rules of torchvision's maskrcnn_resnet50_fpn, and its checkpoints. Its COCO weights reach mask AP 34.6.

python tools/test.py configs/interop/torchvision_mask_rcnn_r50_fpn.py maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth \\
    --cfg-options model.backbone.norm.eps=0.0

The rules of the boxes are those of torchvision_r50_fpn.py.
"""

_base_ = ['./torchvision_r50_fpn.py']

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
                canonical_size=224.0,
                canonical_level=4.0,
                eps_inside=0.0,
                eps_outside=1e-6,
            ),
            num_classes=90,
            in_channels=256,
            num_convs=4,
            conv_channels=256,
            loss_mask=dict(type='BinaryCrossEntropyLoss'),
            soft_targets=True,
            aligned_targets=False,
            mask_thr_binary=0.5,
            paste='torchvision',
        ),
    ),
)

train_dataloader = dict(dataset=dict(with_masks=True))
val_dataloader = dict(dataset=dict(with_masks=True))
test_dataloader = dict(dataset=dict(with_masks=True))
val_evaluator = dict(metric=('bbox', 'segm'))
test_evaluator = dict(metric=('bbox', 'segm'))
