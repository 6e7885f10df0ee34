"""A narrow RetinaNet R18-FPN on the drawn shapes: AP 0.74 from random weights in minutes on two CPU cores.

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
    data_preprocessor=dict(std=(58.0, 58.0, 58.0), pad_size_divisor=16),  # the largest stride
    backbone=dict(
        depth=18,
        base_channels=32,  # half of the usual channels
        style='pytorch',
        norm=norm,
        frozen_stages=-1,
        out_indices=(0, 1, 2),  # the shapes are small, so p2 to p4 instead of p3 to p7
        zero_init_residual=True,
        init_cfg=None,
    ),
    neck=dict(in_channels=(32, 64, 128), out_channels=64, norm=norm, last_level=None),
    bbox_head=dict(
        num_classes=6,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm=dict(type='GN', num_groups=8),
        # The shapes have 18 to 72 pixels, and are about as wide as high.
        anchor_generator=dict(strides=(4, 8, 16), sizes=((16, 20, 25), (32, 40, 51), (64, 81, 102)), ratios=(1.0,)),
        pre_nms=200,
    ),
)

train_dataloader = dict(batch_size=8)
val_dataloader = dict(batch_size=10)
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=8)
# From random weights AdamW needs fewer epochs than SGD.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.002, weight_decay=0.01, fused=True), clip_grad=dict(max_norm=20)
)
train_cfg = dict(max_epochs=12, val_interval=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=51),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, begin=0, end=12, T_max=12, eta_min=0),
]
default_hooks = dict(checkpoint=dict(interval=12), visualization=dict(score_thr=0.5))
