"""90,000 iterations of 16 images; the learning rate falls to a tenth at 60,000 and at 80,000, as in detectron2."""

_base_ = './schedule_1x.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1001),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=90000, milestones=[60000, 80000], gamma=0.1),
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=90000, val_interval=5000)
log_processor = dict(by_epoch=False)
