"""The rules of torchvision's retinanet_resnet50_fpn, and its checkpoints. Its COCO weights reach box AP 36.4.

python tools/test.py configs/interop/torchvision_retinanet_r50_fpn.py torchvision://retinanet_resnet50_fpn \\
    --cfg-options model.backbone.norm.eps=0.0

Every point where the projects differ is set here, in the order of docs/peers.md. torchvision sets eps
of the norms to 0 only for the checkpoint that it publishes.
"""

_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
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
    neck=dict(last_level='p6p7_on_p5'),
    bbox_head=dict(
        num_classes=90,
        conv_bias=False,
        anchor_generator=dict(
            sizes=((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812)),
            round_to_pixels=True,
            strides_from_maps=True,
        ),
        box_coder=dict(limit_shrinking=False),
        loss_bbox=dict(_delete_=True, type='L1Loss'),
        normalizer='image',
        clip_before_nms=True,
        max_per_image=300,
    ),
)

optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_epochs=26)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1001),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=26, milestones=[16, 22], gamma=0.1),
]
