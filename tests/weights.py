"""Weights that behave like trained ones, and files of them in the layouts found in the wild."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from frdet.models.backbones import ResNet
from frdet.models.detectors import FasterRCNN
from frdet.structures import DetDataSample

#: Options for a quarter of a ResNet's channels: there is a sixteenth of the weights to draw, step, save and load.
NARROW = {'model.backbone.base_channels': 16, 'model.neck.in_channels': None}
NARROW_WORDS = [f'{key}={value}' for key, value in NARROW.items()]  #: the same as words of a command


def calibrated_resnet(depth: int, style: str, images: Tensor, base_channels: int = 64) -> ResNet:
    """A ResNet of random weights whose BatchNorm statistics fit ``images`` (N, 3, H, W).

    Random weights under norms that do nothing double the activations from block to block. With statistics set from a
    forward pass and the last norm of each block scaled to 0.3 the features stay of unit size, like a trained net's.
    """
    norm = dict(type='BN', momentum=1.0)
    net = ResNet(depth=depth, style=style, norm=norm, frozen_stages=-1, base_channels=base_channels)
    for block in (b for i in range(1, 5) for b in getattr(net, f'layer{i}')):
        nn.init.constant_((block.bn3 if hasattr(block, 'bn3') else block.bn2).weight, 0.3)
    with torch.no_grad():
        net.train()(images)
    return net.eval()


def caffe2_names(net: ResNet) -> dict[str, np.ndarray]:
    """The weights of ``net`` under the names of detectron2's R-50.pkl: a norm is a scale ``_s`` and a bias ``_b``."""
    blobs: dict[str, np.ndarray] = {}

    def add(conv_name: str, norm_name: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        blobs[f'{conv_name}_w'] = conv.weight.detach().contiguous().numpy()
        blobs[f'{norm_name}_s'] = scale.detach().numpy()
        blobs[f'{norm_name}_b'] = (norm.bias - norm.running_mean * scale).detach().numpy()

    add('conv1', 'res_conv1_bn', net.conv1, net.bn1)
    for stage in range(1, 5):
        for i, block in enumerate(getattr(net, f'layer{stage}')):
            for number, letter in ((1, 'a'), (2, 'b'), (3, 'c')):
                if hasattr(block, f'conv{number}'):
                    name = f'res{stage + 1}_{i}_branch2{letter}'
                    add(name, f'{name}_bn', getattr(block, f'conv{number}'), getattr(block, f'bn{number}'))
            if block.downsample is not None:
                name = f'res{stage + 1}_{i}_branch1'
                add(name, f'{name}_bn', *block.downsample)
    blobs['fc1000_w'] = np.zeros((1000, net.out_channels[-1]), np.float32)
    blobs['fc1000_b'] = np.zeros(1000, np.float32)
    blobs['conv1_w_momentum'] = np.zeros_like(blobs['conv1_w'])
    return blobs


def write_r50_pkl(path: Path, images: Sequence[np.ndarray]) -> Path:
    """A calibrated ``NARROW`` caffe-style ResNet-50 in the layout of R-50.pkl, protocol 2 as Python 2 wrote it.

    Args:
        path: where to.
        images: (H, W, 3) uint8 BGR, of one size.
    """
    mean = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    batch = torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) - mean for image in images])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = calibrated_resnet(50, 'caffe', batch, NARROW['model.backbone.base_channels'])
    path.write_bytes(pickle.dumps({'blobs': caffe2_names(net)}, protocol=2))
    return path


@torch.no_grad()
def calibrate_detector(model: FasterRCNN, images: Tensor) -> None:
    """Give a detector of random weights varied predictions on ``images`` (N, 3, H, W), 0..255, and dull ones on grey.

    Statistics of BatchNorm are set from a forward pass, and the outputs of the heads are scaled to a spread that
    trained ones have. Classes are equally likely on a grey image.
    """
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.momentum = 1.0
    head = model.roi_head.bbox_head
    spreads = [(model.rpn_head.rpn_cls, 1.0), (model.rpn_head.rpn_reg, 0.2), (head.fc_cls, 1.5), (head.fc_reg, 0.5)]

    def scale(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        factor = dict(spreads)[layer] / output.std()
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)
        return output * factor

    def level(layer: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        layer.bias.sub_(output.mean(dim=0))

    _predict(model.train(), images, [(layer, scale) for layer, _ in spreads])
    _predict(model.eval(), torch.full_like(images, 114.0), [(head.fc_cls, level)])


def _predict(model: FasterRCNN, images: Tensor, hooks: list[tuple[nn.Module, Callable]]) -> None:
    handles = [layer.register_forward_hook(hook) for layer, hook in hooks]
    shape = tuple(images.shape[2:])
    samples = [DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape)) for _ in images]
    model.predict(model.data_preprocessor({'inputs': list(images)})['inputs'], samples)
    for handle in handles:
        handle.remove()
