"""A ResNet's weights mean the same under every project's names."""

import re

import numpy as np
import pytest
import torch
import torchvision

from frdet.checkpoints import convert_backbone
from frdet.checkpoints.backbones import NORM_EPS
from frdet.errors import CheckpointError
from frdet.models.backbones import ResNet
from tests.weights import caffe2_names, calibrated_resnet


def detectron2_names(state):
    """torchvision's names -> detectron2's, written from its documentation of the two."""
    renamed = {}
    for name, value in state.items():
        name = re.sub(r'^layer(\d)', lambda m: f'res{int(m[1]) + 1}', name)
        name = name.replace('downsample.0', 'shortcut').replace('downsample.1', 'shortcut.norm')
        name = re.sub(r'bn(\d)', r'conv\1.norm', name)
        renamed[name if name.startswith('res') else f'stem.{name}'] = value
    return renamed


def test_names_by_hand():
    blobs = {
        'conv1_w': np.ones((64, 3, 7, 7)),
        'conv1_b': np.ones(64),
        'res_conv1_bn_s': np.full(64, 2.0),
        'res_conv1_bn_b': np.full(64, 3.0),
        'res2_0_branch1_w': np.ones(1),
        'res2_0_branch1_bn_s': np.ones(1),
        'res3_2_branch2b_w': np.ones(1),
        'res5_11_branch2c_bn_b': np.ones(1),
        'res2_0_branch1_w_momentum': np.ones(1),
        'fc1000_w': np.ones(1),
        'lr': np.ones(1),
    }
    state, layout = convert_backbone(blobs, 'R-50.pkl')
    assert 'Caffe2' in layout
    assert set(state) == {
        'conv1.weight',
        'bn1.weight', 'bn1.bias', 'bn1.running_mean', 'bn1.running_var',
        'layer1.0.downsample.0.weight',
        'layer1.0.downsample.1.weight', 'layer1.0.downsample.1.running_mean', 'layer1.0.downsample.1.running_var',
        'layer2.2.conv2.weight',
        'layer4.11.bn3.bias',
    }  # fmt: skip
    assert state['bn1.weight'].tolist() == [2.0] * 64
    assert state['bn1.bias'].tolist() == [3.0] * 64
    assert all(value.dtype == torch.float32 for value in state.values())


@pytest.mark.parametrize(
    'name',
    [
        'backbone.bottom_up.res3.1.conv2_offset.weight',  # detectron2's DeformBottleneckBlock
        'res3.1.conv2_offset.weight',
        'backbone.layer2.1.conv2.conv_offset.weight',
        'layer2.1.conv2.conv_offset.weight',
    ],
)
def test_offsets_of_deformable_layers(name):
    state = {
        name: torch.ones(27, 4, 3, 3),
        name.replace('conv2_offset', 'conv2').replace('.conv_offset', ''): torch.ones(3, 4, 3, 3),
    }
    assert set(convert_backbone(state, 'a.pth')[0]) >= {'layer2.1.conv2.conv_offset.weight', 'layer2.1.conv2.weight'}


def test_a_scale_alone_stays_exactly_that_scale():
    """weight / sqrt(var + eps), with a division or with rsqrt, is the scale to the last bit."""
    scale = np.random.default_rng(0).lognormal(0, 3, 4096).astype(np.float32)
    blobs = {'res2_0_branch2a_w': np.zeros(1), 'res2_0_branch2a_bn_s': scale, 'res2_0_branch2a_bn_b': scale * 0}
    state, _ = convert_backbone(blobs, 'f')
    weight, var = state['layer1.0.bn1.weight'], state['layer1.0.bn1.running_var']
    assert torch.equal(weight * (var + NORM_EPS).rsqrt(), torch.from_numpy(scale))
    assert torch.equal(weight / (var + NORM_EPS).sqrt(), torch.from_numpy(scale))


@pytest.mark.parametrize('names', [detectron2_names, dict], ids=['detectron2', 'torchvision'])
@pytest.mark.parametrize('missing', [('running_mean',), ('running_var',), ('running_mean', 'running_var')])
def test_a_statistic_that_is_missing_is_not_made_up(names, missing):
    state = names(ResNet(depth=18, norm=dict(type='BN')).state_dict())
    norm = 'res3.0.conv2.norm' if names is detectron2_names else 'layer2.0.bn2'
    given = {name: value for name, value in state.items() if name not in {f'{norm}.{kind}' for kind in missing}}
    assert len(given) == len(state) - len(missing)
    converted, _ = convert_backbone(given, 'f')
    assert not {f'layer2.0.bn2.{kind}' for kind in missing} & set(converted)
    assert 'layer2.0.bn2.weight' in converted


def test_norms_of_groups_get_no_statistics():
    state = ResNet(depth=18, norm=dict(type='GN')).state_dict()
    converted, _ = convert_backbone({f'backbone.{name}': value for name, value in state.items()}, 'f')
    assert set(converted) == set(state)


@pytest.fixture(scope='module')
def resnet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.randn(2, 3, 64, 64)
        return calibrated_resnet(50, 'caffe', images), images


def outputs(state, images, norm):
    net = ResNet(depth=50, style='caffe', norm=dict(type=norm), frozen_stages=-1).eval()
    net.load_state_dict(state, strict=norm == 'FrozenBN')
    with torch.no_grad():
        return net(images)


@pytest.mark.parametrize('layout', ['caffe2', 'detectron2', 'torchvision', 'detector'])
def test_every_layout_computes_the_same(resnet, layout):
    net, images = resnet
    state = net.state_dict()
    given = {
        'caffe2': lambda: caffe2_names(net),
        'detectron2': lambda: {f'backbone.bottom_up.{k}': v.numpy() for k, v in detectron2_names(state).items()},
        'torchvision': lambda: {**state, 'fc.weight': torch.ones(1), 'fc.bias': torch.ones(1)},
        'detector': lambda: {
            **{f'backbone.{k}': v for k, v in state.items()},
            'neck.lateral_convs.0.conv.weight': images,
        },
    }[layout]()
    converted, _ = convert_backbone(given, 'f')
    converted = {k: v for k, v in converted.items() if 'num_batches' not in k}
    with torch.no_grad():
        expected = net(images)
    for ours, theirs in zip(outputs(converted, images, 'FrozenBN'), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_torchvision_resnet():
    """The real model of torchvision, classifier included, against its own forward pass."""
    reference = torchvision.models.resnet18(weights=None).eval()
    converted, layout = convert_backbone(reference.state_dict(), 'f')
    assert layout == 'torchvision'
    net = ResNet(depth=18, style='pytorch', norm=dict(type='BN'), frozen_stages=-1).eval()
    net.load_state_dict(converted)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = net(x)[-1].mean(dim=(2, 3))
        torch.testing.assert_close(reference.fc(features), reference(x))


@pytest.mark.parametrize('state', [{}, {'conv1.weight': torch.ones(1)}, {'blocks.0.attn.qkv.weight': torch.ones(1)}])
def test_unknown_layout(state):
    with pytest.raises(CheckpointError, match='no ResNet in a known layout'):
        convert_backbone(state, 'vit.pth')


def test_no_numbers():
    with pytest.raises(CheckpointError, match='expected numbers'):
        convert_backbone({'res2_0_branch2a_w': np.array(['a'])}, 'f')
    with pytest.raises(CheckpointError, match='expected an array'):
        convert_backbone({'res2_0_branch2a_w': 'a'}, 'f')
