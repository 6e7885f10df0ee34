"""A RetinaNet fine-tuned on a few hundred images, as in own_data.py."""

_base_ = ['./models/retinanet_r50_fpn_v2.py', './schedules/own_data.py']

model = dict(bbox_head=dict(num_classes=None, max_per_image=100))  # as many detections as the other families

# COCO's one-stage detectors have 0.01 for 16 images: half the rate of the others.
optim_wrapper = dict(optimizer=dict(lr=0.0025))
