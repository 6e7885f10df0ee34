"""The rules of torchvision's fcos_resnet50_fpn, and its checkpoints. Its COCO weights reach box AP 39.2.

python tools/test.py configs/interop/torchvision_fcos_r50_fpn.py torchvision://fcos_resnet50_fpn
"""

_base_ = [
    '../_base_/models/fcos_r50_fpn.py',
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
    bbox_head=dict(
        num_classes=90,
        anchor_generator=dict(offset=0.0, round_to_pixels=True, strides_from_maps=True),
        normalizer='batch',
        clip_before_nms=True,
    ),
)

optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_epochs=26)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1001),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=26, milestones=[16, 22], gamma=0.1),
]
