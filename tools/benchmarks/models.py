"""R50-FPN of frdet and of torchvision with the same rules and the same random weights, and images for them."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from frdet.checkpoints import convert_state_dict
from frdet.config import load_config
from frdet.datasets import CocoDataset, write_shapes
from frdet.errors import DataError
from frdet.registry import DETECTORS
from frdet.structures import DetDataSample

CONFIG = Path(__file__).resolve().parents[2] / 'configs/interop/torchvision_r50_fpn.py'
NUM_CLASSES = 90  # torchvision's
ANN_FILE, FOLDER = 'annotations/instances_val2017.json', 'val2017/'
Data = dict[str, Any]


def load_images(count: int, short_side: int) -> tuple[Data, str]:
    """The first images of FRDET_DATA_ROOT's val2017 with boxes, or drawn shapes.

    Returns:
        A batch like one of a data loader, ``inputs`` and ``data_samples``, and the source of the images in words.
    """
    root = os.environ.get('FRDET_DATA_ROOT')
    if root:
        return _first_images(root, count, short_side), f'images of {FOLDER}'
    with tempfile.TemporaryDirectory() as name:
        drawn = write_shapes(Path(name, 'shapes'), num_train=1, num_val=count)
        return _first_images(str(drawn), count, short_side), 'drawn images'


def _first_images(root: str, count: int, short_side: int) -> Data:
    pipeline = [
        dict(type='LoadImage'),
        dict(type='ResizeShortestEdge', short_side=short_side, max_size=2 * short_side),
        dict(type='PackDetInputs'),
    ]
    dataset = CocoDataset(
        data_root=root,
        ann_file=ANN_FILE,
        data_prefix=dict(img=FOLDER),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=pipeline,
    )
    if len(dataset) < count:
        raise DataError(f'{root} has {len(dataset)} images with boxes: expected at least --batch, {count}')
    items = [dataset[i] for i in range(count)]
    return {key: [item[key] for item in items] for key in ('inputs', 'data_samples')}


def draw_images(count: int, height: int, width: int, num_boxes: int, num_classes: int) -> Data:
    """Noise with random boxes whose sides are from 16 pixels to half of the image's side."""
    samples, size = [], torch.tensor([width, height])
    for _ in range(count):
        sides = 16 + torch.rand(num_boxes, 2) * (size / 2 - 16).clamp(min=0)
        corners = torch.rand(num_boxes, 2) * (size - sides).clamp(min=0)
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
        boxes = torch.cat([corners, corners + sides], dim=1)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(num_classes, (num_boxes,)))
        samples.append(sample)
    images = torch.randint(256, (count, 3, height, width), dtype=torch.uint8)
    return {'inputs': list(images), 'data_samples': samples}


def to_torchvision(data: Data, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The batch for torchvision: RGB from 0 to 1, labels from 1."""
    targets = [
        {'boxes': s.gt_instances.bboxes.to(device), 'labels': s.gt_instances.labels.to(device) + 1}
        for s in data['data_samples']
    ]
    return [image.flip(0).to(device) / 255 for image in data['inputs']], targets


def build_torchvision(num_classes: int = NUM_CLASSES) -> FasterRCNN:
    """``fasterrcnn_resnet50_fpn`` with frozen norms and three trained stages, which does not resize images."""
    backbone = resnet_fpn_backbone(backbone_name='resnet50', weights=None, trainable_layers=3)
    return FasterRCNN(backbone, num_classes=num_classes + 1, min_size=1, max_size=10**6)


def random_weights(data: Data, device: torch.device, num_classes: int = NUM_CLASSES) -> dict[str, Tensor]:
    """torchvision's state dict of random weights whose activations are like those of a trained detector.

    Norms take their statistics from the first image. The last norm of a block has the weight 0.3, because activations
    would otherwise double from block to block. The last layers are scaled so that scores and deltas vary: NMS and the
    score threshold get some work.
    """
    torch.manual_seed(0)
    model = build_torchvision(num_classes).to(device).eval()
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.fill_(0.3 if name.endswith('bn3') else 1.0)
            handles.append(module.register_forward_pre_hook(_take_statistics))
    rpn, predictor = model.rpn.head, model.roi_heads.box_predictor
    spreads = {rpn.cls_logits: 0.3, rpn.bbox_pred: 0.2, predictor.cls_score: 1.5, predictor.bbox_pred: 0.5}
    handles += [layer.register_forward_hook(_scale_once(spread)) for layer, spread in spreads.items()]
    with torch.no_grad():
        keep_size(model, data)
        model(to_torchvision(data, device)[0][:1])
    for handle in handles:
        handle.remove()
    return model.cpu().state_dict()


def keep_size(model: FasterRCNN, data: Data) -> None:
    """Make torchvision's transform keep the size of images."""
    model.transform.min_size = (min(min(image.shape[1:]) for image in data['inputs']),)


def _take_statistics(norm: FrozenBatchNorm2d, inputs: tuple[Tensor]) -> None:
    norm.running_var, norm.running_mean = torch.var_mean(inputs[0], dim=(0, 2, 3))


def _scale_once(spread: float) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    """A hook. At its first call each output channel gets the standard deviation ``spread`` and the mean 0."""
    found: list[Tensor] = []

    def hook(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if found:
            return
        channels = output.transpose(0, 1).flatten(1)
        found.append(spread / channels.std(dim=1))
        layer.weight.mul_(found[0].view(-1, *[1] * (layer.weight.dim() - 1)))
        layer.bias.sub_(channels.mean(dim=1)).mul_(found[0])

    return hook


def load_frdet(weights: dict[str, Tensor], device: torch.device, num_classes: int = NUM_CLASSES) -> nn.Module:
    options = {'model.backbone.init_cfg': None, 'model.roi_head.bbox_head.num_classes': num_classes}
    model = DETECTORS.build(load_config(CONFIG, options).model)
    model.load_state_dict(convert_state_dict(weights, source='torchvision'))
    return model.to(device)


def load_torchvision(weights: dict[str, Tensor], data: Data, device: torch.device) -> FasterRCNN:
    model = build_torchvision()
    model.load_state_dict(weights)
    keep_size(model, data)
    return model.to(device)
