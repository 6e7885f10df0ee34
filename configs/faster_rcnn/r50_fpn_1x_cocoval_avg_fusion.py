"""Ablation: FPN averages the lateral and the upsampled map; the reference sums them."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(neck=dict(fuse_type='avg'))
