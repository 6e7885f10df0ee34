"""A narrow Faster R-CNN R18-FPN on the drawn shapes: AP 0.78 from random weights in minutes on two CPU cores.

python tools/train.py configs/quickstart/demo.py
"""

_base_ = './r18_fpn_shapes.py'

model = dict(
    data_preprocessor=dict(pad_size_divisor=16),  # the largest stride
    backbone=dict(base_channels=32, out_indices=(0, 1, 2)),  # half of the usual channels, and no maps of stride 32
    neck=dict(in_channels=(32, 64, 128), last_level=None),
    rpn_head=dict(
        # The shapes have 18 to 72 pixels, and are about as wide as high.
        anchor_generator=dict(strides=(4, 8, 16), sizes=((16, 22), (32, 45), (64, 90)), ratios=(1.0,)),
        assigner=dict(pos_iou_thr=0.6),
        sampler=dict(num=64),
    ),
    roi_head=dict(
        roi_extractor=dict(strides=(4, 8, 16), canonical_size=112),
        # An image has 3 shapes: with the usual quarter of positives there would be few boxes to learn from.
        sampler=dict(num=32, pos_fraction=0.5),
        score_thr=0.01,
    ),
)

train_dataloader = dict(batch_size=8)
val_dataloader = dict(batch_size=10)
test_dataloader = val_dataloader
auto_scale_lr = dict(base_batch_size=8)
# From random weights AdamW needs fewer epochs than SGD.
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.002, weight_decay=0.01, fused=True))
train_cfg = dict(max_epochs=12, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=51),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, begin=0, end=12, T_max=12, eta_min=0),
]
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(interval=12))
