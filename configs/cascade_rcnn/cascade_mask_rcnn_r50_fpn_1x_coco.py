"""Cascade R-CNN with masks, R50-FPN on COCO, 12 epochs. detectron2's 1x schedule: box AP 42.1, mask AP 36.4.

tools/dist_train.sh configs/cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_coco.py 8 \\
    --cfg-options train_dataloader.batch_size=2
"""

_base_ = [
    '../_base_/models/cascade_rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/runtime.py',
]

model = dict(
    roi_head=dict(
        mask_head=dict(  # one head, on the sample of the first stage
            type='FCNMaskHead',
            roi_extractor=dict(
                type='MultiScaleRoIAlign', strides=(4, 8, 16, 32), output_size=14, sampling_ratio=0, aligned=True
            ),
            num_classes=80,
            in_channels=256,
            num_convs=4,
            conv_channels=256,
            loss_mask=dict(type='BinaryCrossEntropyLoss', loss_weight=1.0),
            soft_targets=False,
            aligned_targets=True,
            mask_thr_binary=0.5,
            paste='detectron2',
        ),
    ),
)
