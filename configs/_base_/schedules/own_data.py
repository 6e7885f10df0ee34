"""Data loaders, evaluation, schedule and hooks of a fine-tuning on a few hundred images, for any detector."""

_base_ = '../runtime.py'

train_dataloader = dict(
    batch_size=4,  # in each process; it fits a GPU of 8 GB, and 400 images still give 100 steps in an epoch
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=False),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric')
test_evaluator = val_evaluator

# The rate of 0.02 that COCO's detectors have for 16 images, scaled to 4.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.005, momentum=0.9, weight_decay=0.0001, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=35),  # a few wrong boxes weigh much in a small data set
)
auto_scale_lr = dict(enable=True, base_batch_size=4)  # another number of images in a step scales lr

# Times as shares of the run follow max_epochs by themselves.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=0.05),  # the new layers begin at random
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=1.0, milestones=[0.75, 0.92], gamma=0.1),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=1)  # AP each epoch: it takes seconds
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

log_processor = dict(type='LogProcessor', window_size=20, by_epoch=True)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=2))
