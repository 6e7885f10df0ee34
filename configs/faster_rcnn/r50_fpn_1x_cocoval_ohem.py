"""Ablation: the second stage is trained on the RoIs with the largest loss (OHEM, Shrivastava et al. 2016)."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(roi_head=dict(sampler=dict(type='OHEMSampler')))
