"""Ablation: no warm-up of the learning rate."""

_base_ = './r50_fpn_1x_cocoval.py'

param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11], gamma=0.1)]
