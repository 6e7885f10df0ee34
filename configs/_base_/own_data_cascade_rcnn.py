"""A Cascade R-CNN fine-tuned on a few hundred images, as in own_data.py."""

_base_ = ['./models/cascade_rcnn_r50_fpn.py', './schedules/own_data.py']

model = dict(
    rpn_head=dict(post_nms_train=500, post_nms_test=300),
    roi_head=dict(sampler=dict(num=128), bbox_head=dict(num_classes=None)),
)
