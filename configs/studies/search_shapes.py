"""The learning rate, samples of the second stage and fusion for the quick start on the drawn shapes, in twelve trials.

python tools/ablate.py --search configs/studies/search_shapes.py
"""

base = '../quickstart/demo.py'

space = {
    'optim_wrapper.optimizer.lr': dict(low=5e-4, high=1e-2, log=True),
    'model.roi_head.sampler.num': dict(low=16, high=64, step=16),
    'model.neck.fuse_type': ['sum', 'avg'],
}

trials = 12
metric = 'coco/bbox_mAP'

# A shorter schedule for all.
options = {
    'train_cfg.max_epochs': 3,
    'param_scheduler.1.end': 3,
    'param_scheduler.1.T_max': 3,
    'default_hooks.checkpoint.interval': 1,
}
