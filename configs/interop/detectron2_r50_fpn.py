"""The rules of detectron2's COCO-Detection/faster_rcnn_R_50_FPN_1x, and its checkpoints.

python tools/test.py configs/interop/detectron2_r50_fpn.py model_final_b275ba.pkl

Every point where the projects differ is set here, in the order of docs/peers.md. The values equal those of the base,
because frdet follows detectron2 by default.
"""

_base_ = ['../faster_rcnn/r50_fpn_90k_coco.py']

model = dict(
    data_preprocessor=dict(mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), bgr_to_rgb=False),
    backbone=dict(
        style='caffe',
        norm=dict(type='FrozenBN', eps=1e-5),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='detectron2://ImageNetPretrained/MSRA/R-50.pkl'),
    ),
    rpn_head=dict(
        anchor_generator=dict(round_to_pixels=False, strides_from_maps=False),
        box_coder=dict(limit_shrinking=False),
        assigner=dict(min_pos_iou=0.0, reassign_low_quality=False),
        loss_bbox=dict(_delete_=True, type='L1Loss'),
        normalizer='quota',
        trained_within=None,
        post_nms_train=1000,
        min_side=0.0,
    ),
    roi_head=dict(
        roi_extractor=dict(
            sampling_ratio=0,
            aligned=True,
            canonical_size=224.0,
            canonical_level=4.0,
            eps_inside=1e-8,
            eps_outside=0.0,
        ),
        bbox_head=dict(num_classes=80),
        box_coder=dict(limit_shrinking=False),
        loss_bbox=dict(_delete_=True, type='L1Loss'),
        min_side=0.0,
    ),
)

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeShortestEdge', short_side=(640, 672, 704, 736, 768, 800), max_size=1333, backend='pillow'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='FilterBoxes', min_side=1e-5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeShortestEdge', short_side=800, max_size=1333, backend='pillow'),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
