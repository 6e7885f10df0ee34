"""The built-in data set of six drawn shapes. It is drawn into data_root at the first use, without a download.

600 + 150 images of 112 to 160 pixels; `python -m frdet.datasets.shapes` draws others.
"""

data_root = 'data/shapes/'

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeShortestEdge', short_side=112, max_size=224),
    dict(type='RandomFlip', prob=0.5),
    dict(type='FilterBoxes', min_side=1e-5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeShortestEdge', short_side=112, max_size=224),
    dict(type='PackDetInputs'),
]

train_dataloader = dict(
    batch_size=8,  # in each process
    num_workers=0,  # a worker takes longer to pass a small image on than to read it
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler', drop_last=False),
    dataset=dict(
        type='ShapesDataset',
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ShapesDataset',
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
