"""torchvision's Mask R-CNN on top of ``torchvision_twin``, frdet's with the same rules and weights, and real masks."""

import json
from pathlib import Path

import torch
from pycocotools import mask as coco_masks
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from frdet.models.detectors import FasterRCNN
from frdet.registry import DETECTORS
from frdet.structures import DetDataSample
from tests.models import torchvision_twin as twin

CHANNELS = 32
DETECTIONS = 20


def torchvision_model(depth: int, images: list[Tensor], *, norm: bool = False) -> MaskRCNN:
    """``torchvision_twin``'s model with a mask head; with BatchNorm in it as in ``maskrcnn_resnet50_fpn_v2``."""
    model = twin.torchvision_model(depth, images)
    norm_layer = nn.BatchNorm2d if norm else None
    model.roi_heads.mask_roi_pool = MultiScaleRoIAlign(['0', '1', '2', '3'], output_size=14, sampling_ratio=2)
    model.roi_heads.mask_head = MaskRCNNHeads(256, (CHANNELS, CHANNELS), 1, norm_layer=norm_layer)
    model.roi_heads.mask_predictor = MaskRCNNPredictor(CHANNELS, CHANNELS, twin.NUM_CLASSES + 1)
    model.roi_heads.detections_per_img = DETECTIONS
    # Probabilities of about 0.1 to 0.9. Nearer to 0 and 1, rounding would decide about pixels between two cells.
    handle = model.roi_heads.mask_predictor.mask_fcn_logits.register_forward_hook(twin._spread_once(1.0))
    twin.calibrate(model, images)  # the statistics of the new norms
    handle.remove()
    return model


def frdet_config(depth: int, *, norm: bool = False) -> dict:
    config = twin.frdet_config(depth)
    config['roi_head']['max_per_image'] = DETECTIONS
    config['roi_head']['mask_head'] = dict(
        type='FCNMaskHead',
        roi_extractor={**config['roi_head']['roi_extractor'], 'output_size': 14},
        num_classes=twin.NUM_CLASSES,
        in_channels=256,
        loss_mask=dict(type='BinaryCrossEntropyLoss'),
        num_convs=2,
        conv_channels=CHANNELS,
        norm=dict(type='BN') if norm else None,
        soft_targets=True,
        aligned_targets=False,
        paste='torchvision',
    )
    return config


def to_frdet(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``torchvision_twin.to_frdet``, with the mask head, whose first class, the background, is dropped."""
    prefixes = {
        'roi_heads.mask_predictor.conv5_mask.': 'roi_head.mask_head.upsample.',
        'roi_heads.mask_predictor.mask_fcn_logits.': 'roi_head.mask_head.conv_logits.',
    }
    for i in range(2):
        for number, layer in enumerate(('conv', 'bn')):
            prefixes[f'roi_heads.mask_head.{i}.{number}.'] = f'roi_head.mask_head.convs.{i}.{layer}.'
    converted, others = {}, {}
    for name, tensor in tensors.items():
        old = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if old is None:
            others[name] = tensor
        else:
            converted[prefixes[old] + name.removeprefix(old)] = tensor[1:] if 'mask_fcn_logits' in name else tensor
    return {**twin.to_frdet(others), **converted}


def frdet_model(depth: int, reference: MaskRCNN, *, norm: bool = False) -> FasterRCNN:
    model = DETECTORS.build(frdet_config(depth, norm=norm))
    model.load_state_dict(to_frdet(reference.state_dict()), strict=True)
    return model


def add_masks(samples: list[DetDataSample], ann_file: Path) -> None:
    """The masks of ``torchvision_twin.load_images``'s objects, drawn by pycocotools and resized by nearest pixels."""
    content = json.loads(ann_file.read_text())
    sizes = {r['id']: (r['height'], r['width']) for r in content['images']}
    images = sorted({a['image_id'] for a in content['annotations']})
    objects = [[a for a in content['annotations'] if a['image_id'] == i and not a['iscrowd']] for i in images]
    used = [(i, own) for i, own in zip(images, objects, strict=True) if len(own) >= 2]
    for sample, (image, own) in zip(samples, used, strict=False):
        drawn = [
            coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(a['segmentation'], *sizes[image]))) for a in own
        ]
        masks = torch.stack([torch.from_numpy(one) for one in drawn])
        sample.gt_instances.masks = F.interpolate(masks[:, None], sample.img_shape, mode='nearest')[:, 0]


def for_torchvision(images: list[Tensor], samples: list[DetDataSample]) -> tuple[list[Tensor], list[dict]]:
    """As ``torchvision_twin.for_torchvision``, in float64, with masks."""
    images, targets = twin.in_double(*twin.for_torchvision(images, samples))
    masks = [sample.gt_instances.masks for sample in samples]
    return images, [{**target, 'masks': own} for target, own in zip(targets, masks, strict=True)]
