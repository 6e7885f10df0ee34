"""COCO 2017 in COCO's own layout, with detectron2's augmentation: a shorter side of 640 to 800 pixels, flips.

The folder is data/coco/, or the value of the environment variable FRDET_DATA_ROOT.
"""

data_root = '{{$FRDET_DATA_ROOT:data/coco/}}'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeShortestEdge', short_side=(640, 672, 704, 736, 768, 800), max_size=1333),
    dict(type='RandomFlip', prob=0.5),
    dict(type='FilterBoxes', min_side=1e-5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeShortestEdge', short_side=800, max_size=1333),
    dict(type='PackDetInputs'),
]

train_dataloader = dict(
    batch_size=16,  # in each process
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='CocoMetric')  # against the annotations of the data set that is tested
test_evaluator = val_evaluator
