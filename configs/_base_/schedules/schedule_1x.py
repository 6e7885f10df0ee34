"""12 epochs; the learning rate falls to a tenth after 8 and after 11. This is detectron2's 1x schedule in epochs.

Its times are numbers of epochs and iterations. A float is a share of the run, which follows max_epochs by itself:
milestones=[0.75, 0.9], end=0.05.
"""

# The rate of iteration i < 1000 is lr * (0.001 * (1 - i / 1000) + i / 1000). MMEngine's end is 1 more, hence 1001.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1001),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001, fused=True),
    paramwise_cfg=dict(
        norm_decay_mult=0.0
    ),  # also bias_lr_mult, bias_decay_mult: by default biases are treated as weights
    # clip_grad=dict(max_norm=35, norm_type=2) clips gradients
)
# lr is for 16 images in a step of all processes together, and is scaled to the real number.
auto_scale_lr = dict(enable=True, base_batch_size=16)

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
