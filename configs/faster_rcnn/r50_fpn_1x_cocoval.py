"""Faster R-CNN R50-FPN trained and evaluated on val2017, short side 800. It needs only 1 GB of images.

    python tools/train.py configs/faster_rcnn/r50_fpn_1x_cocoval.py --cfg-options train_dataloader.batch_size=6

The reference is detectron2's faster_rcnn_R_50_FPN_1x on coco_2017_val. The AP shows that training works, not how well
the detector generalises: it is evaluated on its training images.
"""

_base_ = [
    '../_base_/models/faster_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]

train_dataloader = dict(
    dataset=dict(
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        pipeline=[
            dict(type='LoadImage'),
            dict(type='ResizeShortestEdge', short_side=800, max_size=1333),
            dict(type='RandomFlip', prob=0.5),
            dict(type='FilterBoxes', min_side=1e-5),
            dict(type='PackDetInputs'),
        ],
    ),
)
