"""From random weights: GroupNorm everywhere, nothing frozen. For machines that cannot download ImageNet weights."""

_base_ = './r50_fpn_1x_cocoval.py'

norm = dict(type='GN', num_groups=32)
model = dict(
    backbone=dict(norm=dict(_delete_=True, **norm), frozen_stages=-1, zero_init_residual=True, init_cfg=None),
    neck=dict(norm=norm),
)
