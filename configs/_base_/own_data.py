"""A detector fine-tuned on a few hundred images: all that does not depend on the data themselves.

`tools/new_experiment.py` writes a config over this file, with the data sets, the image size and the weights. The files
beside it, such as own_data_mask_rcnn.py, are for other families.
"""

_base_ = ['./models/faster_rcnn_r50_fpn_v2.py', './schedules/own_data.py']

# Fewer proposals and samples than for COCO, whose images are full of objects: a step on a CPU takes half the time.
model = dict(
    rpn_head=dict(post_nms_train=500, post_nms_test=300),
    roi_head=dict(sampler=dict(num=128), bbox_head=dict(num_classes=None)),  # as many classes as the data set has
)
