"""The rules of torchvision's retinanet_resnet50_fpn_v2, and its checkpoints. Its COCO weights reach box AP 41.5.

python tools/test.py configs/interop/torchvision_retinanet_r50_fpn_v2.py torchvision://retinanet_resnet50_fpn_v2

Beside torchvision_retinanet_r50_fpn.py the towers have GroupNorm, p6 is made from c5, and the loss of boxes is GIoU.
torchvision's training computes the statistics of the backbone's norms anew in each batch. Here they stay those of the
checkpoint, which a few images do not spoil.
"""

_base_ = ['./torchvision_retinanet_r50_fpn.py']

model = dict(
    neck=dict(last_level='p6p7_on_c5'),
    bbox_head=dict(norm=dict(type='GN', num_groups=32), loss_bbox=dict(_delete_=True, type='GIoULoss')),
)
