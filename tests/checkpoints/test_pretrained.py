"""``init_cfg=dict(type='Pretrained')`` as MMEngine calls it."""

import logging
import pickle

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn

import frdet.checkpoints.pretrained  # noqa: F401 - registers Pretrained
from frdet.checkpoints import Pretrained
from frdet.errors import CheckpointError
from frdet.models.backbones import ResNet
from tests.weights import caffe2_names, calibrated_resnet


@pytest.fixture(scope='module')
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return calibrated_resnet(18, 'pytorch', torch.randn(2, 3, 64, 64))


@pytest.fixture
def log():
    records = []
    logger = MMLogger.get_instance('pretrained')
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    return records


def resnet18(norm='FrozenBN', **kwargs):
    return ResNet(depth=18, style='pytorch', norm=dict(type=norm), frozen_stages=-1, **kwargs)


def test_init_weights_loads_and_logs(net, tmp_path, log):
    path = tmp_path / 'R-18.pkl'
    path.write_bytes(pickle.dumps({'blobs': caffe2_names(net)}, 2))
    model = resnet18(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    with DefaultScope.overwrite_default_scope('frdet'):
        model.init_weights()
    assert torch.equal(model.layer2[0].downsample[0].weight, net.layer2[0].downsample[0].weight)
    scale = net.bn1.weight / torch.sqrt(net.bn1.running_var + net.bn1.eps)
    assert torch.equal(model.bn1.scale_shift()[0], scale)
    assert any('R-18.pkl' in line and 'Caffe2' in line for line in log)


def test_from_a_detector_and_by_prefix(net, tmp_path):
    state = {f'backbone.{name}': value for name, value in net.state_dict().items()}
    torch.save({'state_dict': {**state, 'neck.w': torch.ones(1)}, 'meta': {}}, tmp_path / 'a.pth')
    for prefix in (None, 'backbone', 'backbone.'):
        model = resnet18('BN')
        Pretrained(checkpoint=str(tmp_path / 'a.pth'), prefix=prefix)(model)
        assert torch.equal(model.layer4[1].conv2.weight, net.layer4[1].conv2.weight)
        assert torch.equal(model.layer4[1].bn2.running_var, net.layer4[1].bn2.running_var)
    with pytest.raises(CheckpointError, match='nothing in it is named head'):
        Pretrained(checkpoint=str(tmp_path / 'a.pth'), prefix='head')(resnet18())


def test_every_parameter_must_be_there(net, tmp_path):
    path = tmp_path / 'a.pth'
    state = net.state_dict()
    del state['layer1.0.conv1.weight'], state['layer3.0.bn1.bias']
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r'lacks layer1\.0\.conv1\.weight, layer3\.0\.bn1\.bias'):
        Pretrained(checkpoint=str(path))(resnet18())


def test_shapes_must_fit(net, tmp_path):
    torch.save({**net.state_dict(), 'conv1.weight': torch.ones(64, 1, 7, 7)}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'another shape of conv1\.weight \(64, 1, 7, 7\)'):
        Pretrained(checkpoint=str(tmp_path / 'a.pth'))(resnet18())


@pytest.mark.parametrize('model', [dict(depth=34, norm=dict(type='BN')), dict(depth=18, norm=dict(type='GN'))])
def test_another_depth_or_norm_does_not_fit(net, tmp_path, model):
    torch.save(net.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='does not fit ResNet') as info:
        Pretrained(checkpoint=str(tmp_path / 'a.pth'))(ResNet(style='pytorch', frozen_stages=-1, **model))
    assert len(str(info.value).splitlines()) <= 2


@pytest.mark.parametrize(('style', 'warned'), [('caffe', True), ('pytorch', False)])
def test_wrong_style_is_told(tmp_path, log, style, warned):
    """A bottleneck's stride is in no shape: torchvision's weights fit a caffe-style model, and are wrong there."""
    torch.save(calibrated_resnet(50, 'pytorch', torch.randn(1, 3, 64, 64)).state_dict(), tmp_path / 'a.pth')
    Pretrained(checkpoint=str(tmp_path / 'a.pth'))(ResNet(depth=50, style=style, norm=dict(type='BN')))
    assert any("style='pytorch'" in line for line in log) == warned


def test_a_module_that_is_no_resnet(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='does not fit Linear'):
        Pretrained(checkpoint=str(tmp_path / 'a.pth'))(nn.Linear(1, 1))
