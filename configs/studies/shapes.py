"""Three ablations of the quick start on the drawn shapes, with three seeds: ten minutes on two CPU cores.

python tools/ablate.py configs/studies/shapes.py
"""

base = '../quickstart/demo.py'

variants = dict(
    giou={'model.roi_head.loss_bbox': dict(type='GIoULoss', loss_weight=10.0)},
    no_warmup={'param_scheduler.0.start_factor': 1.0},
    average_fusion={'model.neck.fuse_type': 'avg'},
)

seeds = 3
metric = 'coco/bbox_mAP'

# A shorter schedule for all.
options = {
    'train_cfg.max_epochs': 3,
    'param_scheduler.1.end': 3,
    'param_scheduler.1.T_max': 3,
    'default_hooks.checkpoint.interval': 1,
}
