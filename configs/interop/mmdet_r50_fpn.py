"""The rules of MMDetection 3's faster-rcnn_r50_fpn_1x_coco, and its checkpoints.

python tools/test.py configs/interop/mmdet_r50_fpn.py faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth

Every point where the projects differ is set here, in the order of docs/peers.md.
"""

_base_ = ['../faster_rcnn/r50_fpn_1x_coco.py']

model = dict(
    data_preprocessor=dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), bgr_to_rgb=True),
    backbone=dict(
        style='pytorch',
        norm=dict(type='BN'),
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    rpn_head=dict(
        anchor_generator=dict(round_to_pixels=False, strides_from_maps=False),
        box_coder=dict(limit_shrinking=True),
        assigner=dict(min_pos_iou=0.3, reassign_low_quality=True),
        loss_bbox=dict(_delete_=True, type='L1Loss'),
        normalizer='sampled_both',
        trained_within=32,
        post_nms_train=1000,
        min_side=0.0,
    ),
    roi_head=dict(
        roi_extractor=dict(
            sampling_ratio=0,
            aligned=True,
            canonical_size=56.0,
            canonical_level=2.0,
            eps_inside=1e-6,
            eps_outside=0.0,
        ),
        bbox_head=dict(num_classes=80),
        box_coder=dict(limit_shrinking=True),
        loss_bbox=dict(_delete_=True, type='L1Loss'),
        min_side=0.0,
    ),
)

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='FilterBoxes', min_side=0.999),  # drops boxes with a side below a pixel: COCO has sides of hundredths
    dict(type='ResizeShortestEdge', short_side=800, max_size=1333, backend='cv2'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeShortestEdge', short_side=800, max_size=1333, backend='cv2'),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(paramwise_cfg=None)  # norms have weight decay, too
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
