"""RetinaNet R18-FPN on the drawn shapes, from random weights: minutes on two CPU cores, no download.

python tools/train.py configs/retinanet/retinanet_r18_fpn_shapes.py
"""

_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]

norm = dict(type='BN')
model = dict(
    data_preprocessor=dict(std=(58.0, 58.0, 58.0)),
    backbone=dict(depth=18, style='pytorch', norm=norm, frozen_stages=-1, zero_init_residual=True, init_cfg=None),
    neck=dict(in_channels=(128, 256, 512), out_channels=64, norm=norm),
    bbox_head=dict(
        num_classes=6,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm=dict(type='GN', num_groups=8),
        # Half the sizes for COCO: images are small.
        anchor_generator=dict(
            sizes=((16, 20, 25), (32, 40, 51), (64, 81, 102), (128, 161, 203), (256, 323, 406)), ratios=(1.0,)
        ),
        pre_nms=200,
    ),
)

# The weights are random and the images few: small batches, a high learning rate, seven epochs.
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=0.01), clip_grad=dict(max_norm=20))
train_cfg = dict(max_epochs=7, val_interval=7)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=51),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=7, milestones=[5, 6], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(interval=7), visualization=dict(score_thr=0.5))
