"""The rules of torchvision's fasterrcnn_resnet50_fpn_v2, and its checkpoints. Its COCO weights reach box AP 46.7.

python tools/test.py configs/interop/torchvision_r50_fpn_v2.py torchvision://fasterrcnn_resnet50_fpn_v2

The rules are those of torchvision_r50_fpn.py, the network is another one. torchvision's training computes the
statistics of the norms anew in each batch. Here they stay those of the checkpoint, which a few images do not spoil.
"""

_base_ = ['./torchvision_r50_fpn.py']

norm = dict(type='FrozenBN', eps=1e-5)
model = dict(
    backbone=dict(norm=norm),
    neck=dict(norm=norm),
    rpn_head=dict(num_convs=2),
    roi_head=dict(bbox_head=dict(num_convs=4, conv_channels=256, norm=norm, num_fcs=1)),
)
