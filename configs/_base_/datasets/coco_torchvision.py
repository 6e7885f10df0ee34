"""COCO 2017 as torchvision's references train on it: one size, images resized by torch, and 90 classes."""

_base_ = './coco_detection.py'

# torchvision's label is COCO's category id, and ten ids are unused. Here labels begin at 0, so each is one less.
classes = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat', 'traffic light',
    'fire hydrant', 'N/A', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep',
    'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'N/A', 'backpack', 'umbrella', 'N/A', 'N/A',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite', 'baseball bat',
    'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle', 'N/A', 'wine glass', 'cup', 'fork',
    'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange', 'broccoli', 'carrot', 'hot dog', 'pizza',
    'donut', 'cake', 'chair', 'couch', 'potted plant', 'bed', 'N/A', 'dining table', 'N/A', 'N/A', 'toilet',
    'N/A', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone', 'microwave', 'oven', 'toaster',
    'sink', 'refrigerator', 'N/A', 'book', 'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush',
)  # fmt: skip

train_pipeline = [
    dict(type='LoadImage'),
    dict(type='FilterBoxes', min_side=0.0),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ResizeShortestEdge', short_side=800, max_size=1333, backend='torch'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeShortestEdge', short_side=800, max_size=1333, backend='torch'),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    dataset=dict(metainfo=dict(classes=classes), filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(metainfo=dict(classes=classes), pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(metainfo=dict(classes=classes), pipeline=test_pipeline))
