"""Detectors of frdet and of torchvision with the same rules and the same random weights, their steps, and images."""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from benchmarks.families import FAMILIES
from benchmarks.timing import ROOT
from frdet.checkpoints import convert_state_dict
from frdet.config import load_config
from frdet.datasets import CocoDataset, write_shapes
from frdet.errors import DataError
from frdet.registry import DETECTORS
from frdet.structures import DetDataSample

NUM_CLASSES = 90  # torchvision's
Data = dict[str, Any]
Values = dict[str, Tensor]
Step = Callable[[], Values]


def load_images(count: int, short_side: int, *, with_masks: bool = False) -> tuple[Data, str]:
    """The first images of FRDET_DATA_ROOT's val2017 with boxes, or drawn shapes, and their masks if asked for.

    Returns:
        A batch like one of a data loader, ``inputs`` and ``data_samples``, and the source of the images in words.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = os.environ.get('FRDET_DATA_ROOT')
        root = given or str(write_shapes(Path(folder, 'shapes'), num_train=1, num_val=count))
        dataset = CocoDataset(
            data_root=root,
            ann_file='annotations/instances_val2017.json',
            data_prefix=dict(img='val2017/'),
            filter_cfg=dict(filter_empty_gt=True),
            with_masks=with_masks,
            pipeline=[
                dict(type='LoadImage'),
                dict(type='ResizeShortestEdge', short_side=short_side, max_size=2 * short_side),
                dict(type='PackDetInputs'),
            ],
        )
        if len(dataset) < count:
            raise DataError(f'{root} has {len(dataset)} images with boxes: expected at least --batch, {count}')
        items = [dataset[i] for i in range(count)]
    data = {key: [item[key] for item in items] for key in ('inputs', 'data_samples')}
    return data, 'images of val2017/' if given else 'drawn images'


def draw_images(count: int, height: int, width: int, num_boxes: int, num_classes: int) -> Data:
    """Noise with random boxes whose sides are from 16 pixels to half of the image's side."""
    size, shapes = torch.tensor([width, height]), dict(img_shape=(height, width), ori_shape=(height, width))
    sides = 16 + torch.rand(count, num_boxes, 2) * (size / 2 - 16).clamp(min=0)
    corners = torch.rand(count, num_boxes, 2) * (size - sides).clamp(min=0)
    boxes = torch.cat([corners, corners + sides], dim=2)
    labels = torch.randint(num_classes, (count, num_boxes))
    truth = [InstanceData(bboxes=b, labels=n) for b, n in zip(boxes, labels, strict=True)]
    images = torch.randint(256, (count, 3, height, width), dtype=torch.uint8)
    return {
        'inputs': list(images),
        'data_samples': [DetDataSample(metainfo=shapes, gt_instances=instances) for instances in truth],
    }


def to_torchvision(data: Data, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The batch for torchvision: RGB from 0 to 1, labels from 1."""
    found = [sample.gt_instances.to(device) for sample in data['data_samples']]
    targets = [{'boxes': truth.bboxes, 'labels': truth.labels + 1} for truth in found]
    for target, truth in zip(targets, found, strict=True):
        if 'masks' in truth:
            target['masks'] = truth.masks
    return [image.flip(0).to(device) / 255 for image in data['inputs']], targets


def build_torchvision(family: str, num_classes: int = NUM_CLASSES) -> Any:
    """torchvision's model, which does not resize images."""
    model = FAMILIES[family].build(num_classes + 1)
    model.transform.resize = lambda image, target: (image, target)
    return model


def build_frdet(
    weights: Values, device: torch.device, family: str = 'faster_rcnn', num_classes: int = NUM_CLASSES
) -> nn.Module:
    """frdet's model with torchvision's ``weights``."""
    options = {'model.backbone.init_cfg': None, **dict.fromkeys(FAMILIES[family].class_keys, num_classes)}
    model = DETECTORS.build(load_config(ROOT / 'configs/interop' / FAMILIES[family].config, options).model)
    model.load_state_dict(convert_state_dict(weights, source='torchvision'))
    return model.to(device)


def random_weights(
    data: Data, device: torch.device, family: str = 'faster_rcnn', num_classes: int = NUM_CLASSES
) -> Values:
    """torchvision's state dict of random weights whose activations are like those of a trained detector.

    Norms take their statistics from the first image. The last norm of a block has the weight 0.3, because activations
    would otherwise double from block to block. The last layers are scaled so that scores and deltas vary: NMS and the
    score threshold get some work.
    """
    torch.manual_seed(0)
    model = build_torchvision(family, num_classes).to(device).eval()
    last = {model.get_submodule(name): spread for name, spread in FAMILIES[family].last.items()}

    def take_statistics(norm: FrozenBatchNorm2d, inputs: tuple[Tensor]) -> None:
        norm.running_var, norm.running_mean = torch.var_mean(inputs[0], dim=(0, 2, 3))

    def scale(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """At the first call, give each output channel the layer's standard deviation and mean in ``last``.

        The output is already the scaled one: without detections a mask head would have nothing to be scaled by.
        """
        if layer not in last:
            return output
        spread, mean = last.pop(layer)
        channels = output.transpose(0, 1).flatten(1)
        factor, shape = spread / channels.std(dim=1), (-1, *[1] * (output.dim() - 2))
        layer.bias.sub_(channels.mean(dim=1)).mul_(factor).add_(mean)
        output = (output - channels.mean(dim=1).view(shape)) * factor.view(shape) + mean
        layer.weight.mul_(factor.view(-1, *[1] * (layer.weight.dim() - 1)))
        return output

    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.fill_(0.3 if name.endswith('bn3') else 1.0)
            module.register_forward_pre_hook(take_statistics)
        if module in last:
            module.register_forward_hook(scale)
    with torch.no_grad():
        model(to_torchvision(data, device)[0][:1])
    return model.cpu().state_dict()


def make_sgd(model: nn.Module) -> torch.optim.Optimizer:
    """The learning rate is so small that the losses of all steps can be compared."""
    params = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(params, lr=1e-6, momentum=0.9, weight_decay=1e-4)


def training_step(
    losses: Callable[[], Values], optimizer: torch.optim.Optimizer, device: torch.device, amp: bool = False
) -> Step:
    """A function that makes a step and returns its losses."""

    def step() -> Values:
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            found = {key: value for key, value in losses().items() if 'loss' in key}
            total = torch.stack(list(found.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return {key: value.detach() for key, value in {'loss': total, **found}.items()}

    return step


def _inference(predict: Callable[[], list[Tensor]], args: argparse.Namespace) -> Step:
    """A function that makes an inference and returns the number of detections and their mean score."""

    def step() -> Values:
        with torch.inference_mode(), torch.autocast(args.device.type, torch.bfloat16, enabled=args.amp):
            scores = torch.cat(predict())
        return {'detections': torch.tensor(len(scores)), 'mean score': scores.mean()}

    return step


def frdet_step(weights: Values, data: Data, args: argparse.Namespace) -> Step:
    model = build_frdet(weights, args.device, args.family).train(args.command == 'train')
    prepare = model.data_preprocessor
    data = prepare.cast_data(data)
    if args.command == 'train':
        return training_step(lambda: model(**prepare(data, True), mode='loss'), make_sgd(model), args.device, args.amp)
    batch = prepare(data, False)
    return _inference(lambda: [s.pred_instances.scores for s in model(**batch, mode='predict')], args)


def torchvision_step(weights: Values, data: Data, args: argparse.Namespace) -> Step:
    model = build_torchvision(args.family)
    model.load_state_dict(weights)
    model.to(args.device).train(args.command == 'train')
    images, targets = to_torchvision(data, args.device)

    def losses() -> Values:
        found = model(images, targets)
        return {ours: found[theirs] for theirs, ours in FAMILIES[args.family].losses.items()}

    if args.command == 'train':
        return training_step(losses, make_sgd(model), args.device, args.amp)
    batch, _ = model.transform(images)

    def prepared(images: Any, targets: Any) -> tuple[ImageList, None]:
        return batch, None

    model.transform.forward = prepared
    return _inference(lambda: [found['scores'] for found in model(images)], args)


SIDES = {'frdet': frdet_step, 'torchvision': torchvision_step}
