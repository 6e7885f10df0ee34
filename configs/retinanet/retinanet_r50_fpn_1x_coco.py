"""RetinaNet R50-FPN on COCO, 12 epochs, short side 640 to 800, with detectron2's rules.

tools/dist_train.sh configs/retinanet/retinanet_r50_fpn_1x_coco.py 8 --cfg-options train_dataloader.batch_size=2
"""

_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.01))  # for 16 images: half of Faster R-CNN's
