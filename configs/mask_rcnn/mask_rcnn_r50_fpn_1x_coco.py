"""Mask R-CNN R50-FPN on COCO, 12 epochs, short side 640 to 800. detectron2's 1x schedule: box AP 38.6, mask AP 35.2.

tools/dist_train.sh configs/mask_rcnn/mask_rcnn_r50_fpn_1x_coco.py 8 --cfg-options train_dataloader.batch_size=2
"""

_base_ = [
    '../_base_/models/mask_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]
