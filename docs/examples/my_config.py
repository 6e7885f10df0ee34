"""A detector of one's own parts, over a shipped config."""

_base_ = '../../configs/quickstart/r18_fpn_shapes.py'

custom_imports = dict(imports=['my_components'])

model = dict(
    backbone=dict(_delete_=True, type='TinyNet', channels=32),
    neck=dict(_delete_=True, type='LateralNeck', in_channels=32, out_channels=64),
    rpn_head=dict(
        assigner=dict(_delete_=True, type='TopKAssigner', k=9),
        sampler=dict(type='EvenSampler'),
    ),
    roi_head=dict(
        type='IterativeRoIHead',
        rounds=1,
        bbox_head=dict(class_agnostic=False),
        loss_bbox=dict(_delete_=True, type='LogCoshLoss', loss_weight=1.0),
    ),
)
custom_hooks = [dict(type='WeightNormHook')]
