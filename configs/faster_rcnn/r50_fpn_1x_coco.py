"""Faster R-CNN R50-FPN on COCO, 12 epochs, short side 640 to 800. detectron2's 1x schedule reaches box AP 37.9.

tools/dist_train.sh configs/faster_rcnn/r50_fpn_1x_coco.py 8 --cfg-options train_dataloader.batch_size=2
"""

_base_ = [
    '../_base_/models/faster_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]
