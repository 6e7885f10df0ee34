"""torchvision's Faster R-CNN, and frdet's with the same rules and the same weights."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FrozenBatchNorm2d

from frdet.models.detectors import FasterRCNN
from frdet.registry import DETECTORS
from frdet.structures import DetDataSample

NUM_CLASSES = 4
FC_CHANNELS = 64
SHORT_SIDE = 96  # of the images, in pixels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB of 0..1
PRE_NMS, POST_NMS = 400, 200
EVERYTHING = 10**6  # more samples than there are boxes: chance plays no part


def torchvision_model(depth: int, images: list[Tensor]) -> TorchvisionFasterRCNN:
    """With random weights that make varied predictions on ``images``, RGB of 0..1."""
    backbone = resnet_fpn_backbone(backbone_name=f'resnet{depth}', weights=None, trainable_layers=3)
    model = TorchvisionFasterRCNN(
        backbone,
        box_head=TwoMLPHead(256 * 7 * 7, FC_CHANNELS),
        box_predictor=FastRCNNPredictor(FC_CHANNELS, NUM_CLASSES + 1),
        rpn_batch_size_per_image=EVERYTHING,
        box_batch_size_per_image=EVERYTHING,
        rpn_pre_nms_top_n_train=PRE_NMS,
        rpn_pre_nms_top_n_test=PRE_NMS,
        rpn_post_nms_top_n_train=POST_NMS,
        rpn_post_nms_top_n_test=POST_NMS,
        box_score_thresh=0.3,
        min_size=SHORT_SIDE,  # which the images have: they are not resized
        max_size=10000,
    )
    calibrate(model, images)
    return model


def calibrate(model: TorchvisionFasterRCNN, images: list[Tensor]) -> None:
    """See ``calibrate_layers``."""
    predictor = model.roi_heads.box_predictor
    calibrate_layers(
        model,
        images,
        (
            (model.rpn.head.cls_logits, 0.3),
            (model.rpn.head.bbox_pred, 0.2),
            (predictor.cls_score, 1.5),
            (predictor.bbox_pred, 0.5),
        ),
    )


@torch.no_grad()
def calibrate_layers(model: nn.Module, images: list[Tensor], spreads: Iterable[tuple[nn.Module, float]]) -> None:
    """Norm statistics from the data, the last norm of a block at 0.3, and predictions of a sensible spread.

    Under norms that do nothing random weights double the activations from block to block.
    """
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d)):
            last = 'bn3' if hasattr(model.backbone.body.layer1[0], 'bn3') else 'bn2'
            module.weight.fill_(0.3 if name.endswith(last) else 1.0)
            handles.append(module.register_forward_pre_hook(_set_statistics))
    for layer, spread in spreads:
        handles.append(layer.register_forward_hook(_spread_once(spread)))
    model.eval()(images)
    for handle in handles:
        handle.remove()


def _set_statistics(norm: FrozenBatchNorm2d | nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
    norm.running_mean.copy_(inputs[0].mean(dim=(0, 2, 3)))
    norm.running_var.copy_(inputs[0].var(dim=(0, 2, 3)))


def _spread_once(spread: float) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    """Scale a layer, at its first call, so that each output channel has mean 0 and this standard deviation."""
    done = []

    def hook(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if done:
            return
        done.append(True)
        rows = output.transpose(0, 1).flatten(1)
        factor = spread / rows.std(dim=1)
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias.copy_((layer.bias - rows.mean(dim=1)) * factor)

    return hook


def frdet_config(depth: int) -> dict:
    """A model config with torchvision's rules wherever they differ from detectron2's."""
    channels = (256, 512, 1024, 2048) if depth >= 50 else (64, 128, 256, 512)
    smooth_l1 = dict(type='SmoothL1Loss', beta=1 / 9)
    return dict(
        type='FasterRCNN',
        data_preprocessor=dict(
            type='DetPreprocessor',
            mean=tuple(255 * m for m in MEAN),
            std=tuple(255 * s for s in STD),
            bgr_to_rgb=True,
        ),
        backbone=dict(type='ResNet', depth=depth, style='pytorch', norm=dict(type='FrozenBN'), frozen_stages=1),
        neck=dict(type='FPN', in_channels=channels, out_channels=256),
        rpn_head=dict(
            type='RPNHead',
            in_channels=256,
            feat_channels=256,
            anchor_generator=dict(
                type='AnchorGenerator',
                strides=(4, 8, 16, 32, 64),
                sizes=((32,), (64,), (128,), (256,), (512,)),
                ratios=(0.5, 1.0, 2.0),
                round_to_pixels=True,
            ),
            box_coder=dict(type='DeltaXYWHCoder'),
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, match_low_quality=True),
            sampler=dict(type='RandomSampler', num=EVERYTHING, pos_fraction=0.5),
            loss_cls=dict(type='BinaryCrossEntropyLoss'),
            loss_bbox=smooth_l1,
            normalizer='sampled',
            pre_nms_train=PRE_NMS,
            pre_nms_test=PRE_NMS,
            post_nms_train=POST_NMS,
            post_nms_test=POST_NMS,
            nms_iou_thr=0.7,
            min_side=1e-3,
        ),
        roi_head=dict(
            type='StandardRoIHead',
            roi_extractor=dict(
                type='MultiScaleRoIAlign',
                strides=(4, 8, 16, 32),
                output_size=7,
                sampling_ratio=2,
                aligned=False,
                eps_inside=0.0,
                eps_outside=1e-6,
            ),
            bbox_head=dict(
                type='FCBBoxHead',
                num_classes=NUM_CLASSES,
                in_channels=256,
                roi_size=7,
                fc_channels=FC_CHANNELS,
                num_fcs=2,
            ),
            box_coder=dict(type='DeltaXYWHCoder', weights=(10.0, 10.0, 5.0, 5.0)),
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, match_low_quality=False),
            sampler=dict(type='RandomSampler', num=EVERYTHING, pos_fraction=0.25),
            loss_cls=dict(type='CrossEntropyLoss'),
            loss_bbox=smooth_l1,
            add_gt_as_proposals=True,
            score_thr=0.3,
            nms_iou_thr=0.5,
            max_per_image=100,
            min_side=1e-2,
        ),
    )


def to_frdet(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights, or gradients, of torchvision's model under frdet's names; the background moves from first to last."""
    deep = any(name.startswith('rpn.head.conv.1.') for name in tensors)  # of fasterrcnn_resnet50_fpn_v2
    prefixes = {
        'backbone.body.': 'backbone.',
        'rpn.head.conv.0.0.': 'rpn_head.rpn_conv.0.conv.' if deep else 'rpn_head.rpn_conv.',
        'rpn.head.conv.1.0.': 'rpn_head.rpn_conv.1.conv.',
        'rpn.head.cls_logits.': 'rpn_head.rpn_cls.',
        'rpn.head.bbox_pred.': 'rpn_head.rpn_reg.',
        'roi_heads.box_head.fc6.': 'roi_head.bbox_head.shared_fcs.0.',
        'roi_heads.box_head.fc7.': 'roi_head.bbox_head.shared_fcs.1.',
        'roi_heads.box_head.5.': 'roi_head.bbox_head.shared_fcs.0.',
        'roi_heads.box_predictor.cls_score.': 'roi_head.bbox_head.fc_cls.',
        'roi_heads.box_predictor.bbox_pred.': 'roi_head.bbox_head.fc_reg.',
    }
    for i in range(4):
        for number, layer in enumerate(('conv', 'bn')):
            prefixes[f'backbone.fpn.inner_blocks.{i}.{number}.'] = f'neck.lateral_convs.{i}.{layer}.'
            prefixes[f'backbone.fpn.layer_blocks.{i}.{number}.'] = f'neck.fpn_convs.{i}.{layer}.'
            prefixes[f'roi_heads.box_head.{i}.{number}.'] = f'roi_head.bbox_head.shared_convs.{i}.{layer}.'
    converted = {}
    for name, tensor in tensors.items():
        (old,) = (p for p in prefixes if name.startswith(p))
        if 'cls_score' in name:
            tensor = torch.cat([tensor[1:], tensor[:1]])
        elif 'roi_heads.box_predictor.bbox_pred' in name:
            tensor = tensor[4:]
        converted[prefixes[old] + name.removeprefix(old)] = tensor
    return converted


def frdet_model(depth: int, reference: TorchvisionFasterRCNN) -> FasterRCNN:
    model = DETECTORS.build(frdet_config(depth))
    model.load_state_dict(to_frdet(reference.state_dict()), strict=True)
    return model


def load_images(folder: Path, ann_file: Path, count: int) -> tuple[list[Tensor], list[DetDataSample]]:
    """The first ``count`` images of a COCO data set with at least two boxes, resized: (3, H, W) uint8 BGR."""
    content = json.loads(ann_file.read_text())
    images, samples = [], []
    for record in sorted(content['images'], key=lambda r: r['id']):
        objects = [a for a in content['annotations'] if a['image_id'] == record['id'] and not a['iscrowd']]
        if len(objects) < 2:
            continue
        scale = SHORT_SIDE / min(record['width'], record['height'])
        width, height = round(record['width'] * scale), round(record['height'] * scale)
        picture = Image.open(folder / record['file_name']).convert('RGB').resize((width, height))
        images.append(torch.from_numpy(np.array(picture)[:, :, ::-1].copy()).permute(2, 0, 1).contiguous())
        xywh = torch.tensor([a['bbox'] for a in objects])
        factor = torch.tensor([width / record['width'], height / record['height']])
        corners = torch.cat([xywh[:, :2] * factor, (xywh[:, :2] + xywh[:, 2:]) * factor], dim=1)
        sample = DetDataSample(metainfo={'img_shape': (height, width), 'ori_shape': (height, width)})
        labels = torch.tensor([a['category_id'] % NUM_CLASSES for a in objects])
        sample.gt_instances = InstanceData(bboxes=corners, labels=labels)
        samples.append(sample)
        if len(images) == count:
            break
    return images, samples


def for_torchvision(images: list[Tensor], samples: list[DetDataSample]) -> tuple[list[Tensor], list[dict]]:
    """RGB of 0..1; labels from 1."""
    targets = [{'boxes': s.gt_instances.bboxes, 'labels': s.gt_instances.labels + 1} for s in samples]
    return [image.flip(0) / 255 for image in images], targets


def in_double(images: list[Tensor], targets: list[dict]) -> tuple[list[Tensor], list[dict]]:
    """What ``for_torchvision`` gives, in float64."""
    targets = [{'boxes': t['boxes'].double(), 'labels': t['labels']} for t in targets]
    return [image.double() for image in images], targets
