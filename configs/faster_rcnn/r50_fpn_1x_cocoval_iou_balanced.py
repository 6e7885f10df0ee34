"""Ablation: the negatives of the second stage are drawn evenly over their IoU (Libra R-CNN)."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(roi_head=dict(sampler=dict(type='IoUBalancedSampler', num_bins=3)))
