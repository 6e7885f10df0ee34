"""The rules of torchvision's maskrcnn_resnet50_fpn_v2, and its checkpoints. Its COCO weights reach mask AP 41.8.

python tools/test.py configs/interop/torchvision_mask_rcnn_r50_fpn_v2.py torchvision://maskrcnn_resnet50_fpn_v2

The rules are those of torchvision_mask_rcnn_r50_fpn.py. The network differs as in torchvision_r50_fpn_v2.py, and the
mask head has norms, too.
"""

_base_ = ['./torchvision_mask_rcnn_r50_fpn.py']

norm = dict(type='FrozenBN', eps=1e-5)
model = dict(
    backbone=dict(norm=norm),
    neck=dict(norm=norm),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(num_convs=4, conv_channels=256, norm=norm, num_fcs=1),
        mask_head=dict(norm=norm),
    ),
)
