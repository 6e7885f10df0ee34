"""Faster R-CNN on torchvision's MobileNetV3, with its weights of ImageNet.

PYTHONPATH=docs/examples/torchvision_backbone \\
    python tools/train.py docs/examples/torchvision_backbone/mobilenet_shapes.py
"""

_base_ = '../../../configs/quickstart/r18_fpn_shapes.py'

custom_imports = dict(imports=['torchvision_backbone'])

model = dict(
    data_preprocessor=dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='TorchvisionBackbone',
        name='mobilenet_v3_small',
        nodes=['features.1', 'features.3', 'features.8', 'features.12'],  # strides 4, 8, 16, 32
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://mobilenet_v3_small'),
    ),
    neck=dict(in_channels=None),
)
