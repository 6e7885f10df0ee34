"""The 1x schedule counted in iterations, as detectron2 counts it: 90,000 of 16 images, milestones 60,000 and 80,000.

tools/dist_train.sh configs/faster_rcnn/r50_fpn_90k_coco.py 8 --cfg-options train_dataloader.batch_size=2
"""

_base_ = [
    '../_base_/models/faster_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_90k.py',
    '../_base_/runtime.py',
]

# The sampler never ends, so no batch at the end of an epoch is smaller.
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
