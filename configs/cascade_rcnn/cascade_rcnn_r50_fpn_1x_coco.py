"""Cascade R-CNN R50-FPN on COCO, 12 epochs. MMDetection's, on torchvision's ResNet, reaches box AP 40.3.

tools/dist_train.sh configs/cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco.py 8 --cfg-options train_dataloader.batch_size=2
"""

_base_ = [
    '../_base_/models/cascade_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]
