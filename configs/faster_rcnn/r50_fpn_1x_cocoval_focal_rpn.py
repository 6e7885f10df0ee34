"""Ablation: focal loss on objectness, over all anchors that are not ignored."""

_base_ = './r50_fpn_1x_cocoval.py'

model = dict(
    rpn_head=dict(
        sampler=dict(num=1_000_000, pos_fraction=1.0),
        loss_cls=dict(type='FocalLoss', alpha=0.25, gamma=2.0),
        normalizer='sampled',
    )
)
