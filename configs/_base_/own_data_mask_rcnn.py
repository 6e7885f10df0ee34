"""A Mask R-CNN fine-tuned on a few hundred images with masks: own_data.py with a mask head."""

_base_ = ['./models/mask_rcnn_r50_fpn_v2.py', './schedules/own_data.py']

model = dict(
    rpn_head=dict(post_nms_train=500, post_nms_test=300),
    roi_head=dict(sampler=dict(num=128), bbox_head=dict(num_classes=None), mask_head=dict(num_classes=None)),
)

val_evaluator = dict(metric=('bbox', 'segm'))
test_evaluator = val_evaluator
