"""The rules of torchvision's fasterrcnn_resnet50_fpn, and its checkpoints.

python tools/test.py configs/interop/torchvision_r50_fpn.py fasterrcnn_resnet50_fpn_coco-258fb6c6.pth \\
    --cfg-options model.backbone.norm.eps=0.0

Every point where the projects differ is set here, in the order of docs/peers.md, or in coco_torchvision.py, for the
images and classes. torchvision sets eps of the norms to 0 only for the checkpoint that it publishes.
"""

_base_ = [
    '../_base_/models/faster_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_torchvision.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]

model = dict(
    data_preprocessor=dict(
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255), std=(0.229 * 255, 0.224 * 255, 0.225 * 255), bgr_to_rgb=True
    ),
    backbone=dict(
        style='pytorch',
        norm=dict(type='FrozenBN', eps=1e-5),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    rpn_head=dict(
        anchor_generator=dict(round_to_pixels=True, strides_from_maps=True),
        box_coder=dict(limit_shrinking=False),
        assigner=dict(min_pos_iou=0.0, reassign_low_quality=False),
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9),
        normalizer='sampled',
        trained_within=None,
        post_nms_train=2000,
        min_side=1e-3,
    ),
    roi_head=dict(
        roi_extractor=dict(
            sampling_ratio=2,
            aligned=False,
            canonical_size=224.0,
            canonical_level=4.0,
            eps_inside=0.0,
            eps_outside=1e-6,
        ),
        bbox_head=dict(num_classes=90),
        box_coder=dict(limit_shrinking=False),
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9),
        min_side=1e-2,
    ),
)

train_cfg = dict(max_epochs=26)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1001),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=26, milestones=[16, 22], gamma=0.1),
]
