"""Small steps to inspect, and what a page says of them."""

from pathlib import Path

import torch

from frdet.config import load_config
from tests.weights import NARROW

ROOT = Path(__file__).resolve().parents[3]


def shapes_config(root, **changes):
    """The quickstart on a drawn data set in ``root``."""
    data = {'train_dataloader.dataset.data_root': str(root)}
    return load_config(ROOT / 'configs/quickstart/r18_fpn_shapes.py', {**NARROW, **data, **changes})


def coco_config(coco_root, **changes):
    """The reference config on ``coco_root``, small: ResNet-18 with FrozenBN, images of 128 pixels."""
    smaller = {
        'model.backbone': dict(depth=18, base_channels=16, init_cfg=None),
        'model.neck': dict(in_channels=None, out_channels=32),
        'model.rpn_head': dict(in_channels=32, feat_channels=32, pre_nms_train=200, post_nms_train=100),
        'model.roi_head.bbox_head': dict(num_classes=len(coco_root.classes), in_channels=32, fc_channels=64),
        'train_dataloader.batch_size': 6,
        'train_dataloader.dataset': dict(
            data_root=str(coco_root.root), ann_file=coco_root.train_ann, data_prefix=dict(img=coco_root.train_prefix)
        ),
        'train_dataloader.dataset.pipeline.1.short_side': 128,
    }
    return load_config(ROOT / 'configs/faster_rcnn/r50_fpn_1x_coco.py', {**smaller, **changes})


def table(page, caption, index=0):
    """A table of a page: first cell of each row -> the others by heading."""
    blocks = [b for s in page.sections for b in s.blocks if b['kind'] == 'table' and b['caption'].startswith(caption)]
    head = blocks[index]['head']
    return {row.cells[0]: dict(zip(head[1:], row.cells[1:], strict=True)) for row in blocks[index]['items']}


def anchors_by_hand(shapes, strides, sizes, ratios):
    """One cell after the other, a level each."""
    levels = []
    for (height, width), stride, size in zip(shapes, strides, sizes, strict=True):
        boxes = []
        for y in range(height):
            for x in range(width):
                for ratio in ratios:
                    w, h = size / ratio**0.5, size * ratio**0.5
                    boxes.append([x * stride - w / 2, y * stride - h / 2, x * stride + w / 2, y * stride + h / 2])
        levels.append(torch.tensor(boxes))
    return levels
