"""What training starts from: all that fits, and only the layers that depend on the classes anew."""

import logging
import pickle

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn

from frdet.checkpoints import Pretrained
from frdet.checkpoints.fit import fit_to_start, load_strictly
from frdet.errors import CheckpointError
from frdet.models.backbones import ResNet
from tests.weights import caffe2_names, calibrated_resnet


class Detector(nn.Module):
    def __init__(self, classes, channels=3):
        super().__init__()
        self.neck = nn.BatchNorm2d(2)
        self.roi_head = nn.Module()
        self.roi_head.bbox_head = head = nn.Module()
        head.fc_cls, head.fc_reg = nn.Linear(channels, classes + 1), nn.Linear(channels, 4 * classes)
        head.class_layers, head.num_classes = ('fc_cls', 'fc_reg'), classes


class OneStage(nn.Module):
    """``anchors`` scores for each class, and boxes for all of them together."""

    class_layers = ('cls',)

    def __init__(self, classes, anchors=3):
        super().__init__()
        self.num_classes = classes
        self.cls, self.reg = nn.Conv2d(2, anchors * classes, 3), nn.Conv2d(2, anchors * 4, 3)


@pytest.fixture
def warnings():
    records = []
    logger = MMLogger.get_instance('fit')
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logger.addHandler(handler)
    return records


def test_what_fits_is_taken_whole(warnings):
    state = Detector(4).state_dict()
    taken = fit_to_start(Detector(4), state, 'a.pth')
    assert all(torch.equal(taken[name], value) for name, value in state.items())
    assert not warnings


def test_other_classes_start_anew(warnings):
    state, model = Detector(80).state_dict(), Detector(4)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    state['neck.weight'] = torch.tensor([5.0, 6.0])
    model.load_state_dict(fit_to_start(model, state, 'a.pth'), strict=True)
    assert model.neck.weight.tolist() == [5, 6]
    for name, value in own.items():
        assert torch.equal(model.state_dict()[name], value) == (name != 'neck.weight')
    (warning,) = warnings
    assert 'a.pth has 80 classes, the model 4' in warning
    assert 'fc_cls and roi_head.bbox_head.fc_reg start anew' in warning


@pytest.mark.parametrize(
    ('given', 'wanted', 'words'),
    [(80, 4, 'has 80 classes, the model 4: cls start anew'), (7, 1, 'has other classes: cls start anew')],
)
def test_other_classes_of_any_part(warnings, given, wanted, words):
    """Two outputs a class. Of one class they may also be one for it and one for the background: 14 is then 7 or 13."""
    model, state = OneStage(wanted, 2), OneStage(given, 2).state_dict()
    taken = fit_to_start(model, state, 'a.pth')
    assert torch.equal(taken['reg.weight'], state['reg.weight'])
    assert torch.equal(taken['cls.weight'], model.cls.weight)
    (warning,) = warnings
    assert words in warning


def test_layers_that_no_part_declares_are_refused():
    model = OneStage(4)
    model.class_layers = ()
    with pytest.raises(CheckpointError, match=r'another shape of cls\.weight'):
        fit_to_start(model, OneStage(80).state_dict(), 'a.pth')


def test_what_the_model_does_not_have_is_left_out(warnings):
    model = Detector(4)
    mask = {f'roi_head.mask_head.convs.{i}.weight': torch.ones(1) for i in range(5)}
    taken = fit_to_start(model, {**model.state_dict(), **mask}, 'a.pth')
    model.load_state_dict(taken, strict=True)
    (warning,) = warnings
    assert 'roi_head.mask_head.convs.0.weight' in warning and 'and 2 more: left out' in warning


def family(kind, mask=False):
    """A module with the layers by which a family is known, and a neck."""
    layers = {
        'Faster R-CNN': ('rpn_head.rpn_cls', 'roi_head.bbox_head.fc_cls'),
        'RetinaNet': ('bbox_head.retina_cls', 'bbox_head.retina_reg'),
        'Cascade R-CNN': ('rpn_head.rpn_cls', 'roi_head.bbox_head.0.fc_cls'),
    }[kind]
    if mask:
        layers = (*layers, 'roi_head.mask_head.upsample', 'roi_head.mask_head.conv_logits')
    model = nn.Module()
    model.neck = nn.BatchNorm2d(2)
    for layer in layers:
        *outer, last = layer.split('.')
        part = model
        for name in outer:
            if not hasattr(part, name):
                part.add_module(name, nn.Module())
            part = getattr(part, name)
        part.add_module(last, nn.Conv2d(2, 3, 1))
    return model


@pytest.mark.parametrize('load', [load_strictly, fit_to_start])
@pytest.mark.parametrize(('given', 'wanted'), [('RetinaNet', 'Faster R-CNN'), ('Faster R-CNN', 'Cascade R-CNN')])
def test_another_family_is_refused_in_words(load, given, wanted):
    with pytest.raises(CheckpointError) as info:
        load(family(wanted), family(given).state_dict(), 'a.pth (layout frdet)')
    first, second = str(info.value).splitlines()
    assert first == f"a.pth (layout frdet) holds a {given}, and the config's model is a {wanted}."
    assert second == f'Give a checkpoint of a {wanted}, or the config of a {given}'


@pytest.mark.parametrize(
    ('given', 'wanted', 'words'),
    [
        (False, True, "holds a Faster R-CNN, and the config's model is a Mask R-CNN"),
        (True, False, "holds a Mask R-CNN, and the config's model is a Faster R-CNN"),
    ],
)
def test_masks_in_one_of_both_do_not_load(given, wanted, words):
    """What is tested must be what was trained."""
    with pytest.raises(CheckpointError, match=words):
        load_strictly(family('Faster R-CNN', wanted), family('Faster R-CNN', given).state_dict(), 'a.pth')


def test_a_mask_head_that_the_file_lacks_starts_anew(warnings):
    state, model = family('Faster R-CNN').state_dict(), family('Faster R-CNN', mask=True)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(fit_to_start(model, state, 'a.pth'), strict=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name] if 'mask_head' in name else state[name]), name
    assert warnings == ['a.pth has no mask head: roi_head.mask_head starts anew']


def test_half_a_mask_head_is_refused():
    model = family('Faster R-CNN', mask=True)
    state = model.state_dict()
    del state['roi_head.mask_head.upsample.bias']
    with pytest.raises(CheckpointError, match=r'lacks roi_head\.mask_head\.upsample\.bias'):
        fit_to_start(model, state, 'a.pth')


def test_masks_that_the_model_does_not_have_are_left_out(warnings):
    model = family('Faster R-CNN')
    taken = fit_to_start(model, family('Faster R-CNN', mask=True).state_dict(), 'a.pth')
    model.load_state_dict(taken, strict=True)
    (warning,) = warnings
    assert 'a.pth has, unlike the model, roi_head.mask_head.conv_logits.bias' in warning and 'left out' in warning


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda state: state.pop('neck.bias'), r'lacks neck\.bias'),
        (lambda state: state.pop('roi_head.bbox_head.fc_cls.bias'), r'lacks roi_head\.bbox_head\.fc_cls\.bias'),
        (
            lambda state: state.update({'neck.bias': torch.ones(7)}),
            r'another shape of neck\.bias \(7,\) \(model: \(2,\)',
        ),
    ],
)
def test_anything_else_is_refused(change, words):
    state = Detector(4).state_dict()
    change(state)
    with pytest.raises(CheckpointError, match=words) as info:
        fit_to_start(Detector(4), state, 'a.pth')
    assert 'does not fit Detector' in str(info.value) and len(str(info.value).splitlines()) <= 2


def test_another_width_is_not_another_class_count():
    with pytest.raises(CheckpointError, match=r'another shape of roi_head\.bbox_head\.fc_cls\.weight'):
        fit_to_start(Detector(4), Detector(4, channels=5).state_dict(), 'a.pth')


def test_counters_of_batches_may_differ(warnings):
    state = Detector(4).state_dict()
    del state['neck.num_batches_tracked']
    assert 'neck.weight' in fit_to_start(Detector(4), state, 'a.pth')
    assert not warnings


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


def test_a_resnet_of_fewer_stages_takes_a_whole_file(net, tmp_path, log):
    """The layers that it lacks are left out; another layer that only the file has is refused as ever."""
    path, state = tmp_path / 'a.pth', net.state_dict()
    torch.save({**state, 'fc.weight': torch.ones(1)}, path)
    model = resnet18('BN', out_indices=(0, 1))
    Pretrained(checkpoint=str(path))(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert log[-1].endswith('a.pth, layout torchvision, without layer3, layer4')
    torch.save({**state, 'layer2.9.conv1.weight': torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=r'unlike the model, layer2\.9\.conv1\.weight\.'):
        Pretrained(checkpoint=str(path))(model)


def test_deformable_layers_start_from_a_plain_resnet(tmp_path, log):
    """Offsets that the file lacks stay 0, and the log names them; those of a file of the same model are loaded."""
    plain = ResNet(depth=50, norm=dict(type='BN'), base_channels=4)
    torch.save({**plain.state_dict(), 'fc.weight': torch.ones(1)}, tmp_path / 'a.pth')
    options = dict(depth=50, norm=dict(type='BN'), base_channels=4, dcn=dict(type='DCNv2'))
    model = ResNet(**options, stage_with_dcn=(False, False, False, True))
    Pretrained(checkpoint=str(tmp_path / 'a.pth'))(model)
    assert torch.equal(model.layer4[2].conv2.weight, plain.layer4[2].conv2.weight)
    assert not model.layer4[2].conv2.conv_offset.weight.any()
    expected = '; it lacks layer4.0.conv2.conv_offset.weight, layer4.0.conv2.conv_offset.bias'
    assert expected in log[-2] and log[-2].endswith(' and 3 more, which stay as they are')
    assert 'the model has the other style' in log[-1]  # it is told also where layers are missing

    model.layer4[0].conv2.conv_offset.weight.data.fill_(2.0)
    torch.save({f'backbone.{name}': value for name, value in model.state_dict().items()}, tmp_path / 'b.pth')
    again = ResNet(**options)  # and stages of its own
    Pretrained(checkpoint=str(tmp_path / 'b.pth'))(again)
    assert again.layer4[0].conv2.conv_offset.weight.eq(2).all() and 'layer2.0.conv2.conv_offset' in log[-1]
    state = plain.state_dict()
    del state['layer4.0.conv2.weight']
    torch.save(state, tmp_path / 'c.pth')
    with pytest.raises(CheckpointError, match=r'it lacks layer4\.0\.conv2\.weight\.'):
        Pretrained(checkpoint=str(tmp_path / 'c.pth'))(model)


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


class Convolutions(nn.Module):
    """A user's backbone: two layers, called as in the file or below ``body``."""

    def __init__(self, *, inside=False, joint='_'):
        super().__init__()
        parts = {f'stages{joint}0': nn.Conv2d(3, 2, 1), 'stem': nn.BatchNorm2d(2)}
        if joint == '.':
            parts = {'stages': nn.Sequential(nn.Conv2d(3, 2, 1)), 'stem': nn.BatchNorm2d(2)}
        if inside:
            self.body = nn.ModuleDict(parts)
        else:
            for name, part in parts.items():
                self.add_module(name, part)


def save(path, module, prefix='', **more):
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    state = {**module.state_dict(), **more}
    torch.save({prefix + name: value for name, value in state.items()}, path)
    return list(module.parameters())


@pytest.mark.parametrize('inside', [False, True])
@pytest.mark.parametrize('joint', ['.', '_'])
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'model.net.'])
@pytest.mark.parametrize('more', [{}, {'head.norm.weight': torch.ones(2), 'head.fc.bias': torch.ones(7)}])
def test_any_backbone_takes_the_names_of_its_file(tmp_path, log, inside, joint, prefix, more):
    expected = save(tmp_path / 'a.pth', Convolutions(joint='.'), prefix, **more)
    model = Convolutions(inside=inside, joint=joint)
    Pretrained(checkpoint=str(tmp_path / 'a.pth'))(model)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), expected, strict=True))
    left_out = f', without {prefix}head.norm.weight, {prefix}head.fc.bias' if more else ''
    assert log == [f'Convolutions: weights of {tmp_path}/a.pth, names as they are{left_out}']


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        ({'neck.weight': torch.ones(1)}, r'has, unlike the model, neck\.weight'),
        ({'stem.weight': torch.ones(3)}, r'another shape of stem\.weight \(3,\) \(model: \(2,\)\)'),
    ],
)
def test_what_else_does_not_fit_is_named(tmp_path, more, words):
    save(tmp_path / 'a.pth', Convolutions(), **more)
    with pytest.raises(CheckpointError, match=rf'(?s)a\.pth \(tried names as they are\).*Convolutions.*{words}'):
        Pretrained(checkpoint=str(tmp_path / 'a.pth'))(Convolutions())


def test_names_that_two_of_the_file_would_get(tmp_path):
    """``stages_0`` and ``stages.0`` are one name only where the file has one of them."""
    save(tmp_path / 'a.pth', Convolutions(joint='.'), **{'stages_0.weight': torch.ones(2, 3, 1, 1)})
    with pytest.raises(CheckpointError, match=r'does not fit Convolutions'):
        Pretrained(checkpoint=str(tmp_path / 'a.pth'))(Convolutions(joint='_'))


def test_a_backbone_of_torchvision(tmp_path, log):
    """Its own file as a whole; without its classifier; a ResNet also from detectron2's names."""
    models = pytest.importorskip('torchvision.models')
    net = models.mobilenet_v3_small()
    expected = save(tmp_path / 'a.pth', net)
    model = models.mobilenet_v3_small()
    Pretrained(checkpoint=str(tmp_path / 'a.pth'))(model)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), expected, strict=True))
    features = nn.ModuleDict({'features': models.mobilenet_v3_small().features})
    Pretrained(checkpoint=str(tmp_path / 'a.pth'))(features)
    assert torch.equal(next(features.parameters()), expected[0])
    assert log[-1].endswith('without classifier.0.weight, classifier.0.bias, classifier.3.weight, classifier.3.bias')


def test_a_resnet_below_a_name_takes_every_layout(net, tmp_path, log):
    models = pytest.importorskip('torchvision.models')
    (tmp_path / 'R-18.pkl').write_bytes(pickle.dumps({'blobs': caffe2_names(net)}, 2))
    body = models.resnet18()
    body.fc = nn.Identity()
    model = nn.ModuleDict({'body': body})
    Pretrained(checkpoint=str(tmp_path / 'R-18.pkl'))(model)
    assert torch.equal(body.layer4[1].conv2.weight, net.layer4[1].conv2.weight)
    assert 'layout Caffe2' in log[-1]


def test_a_backbone_of_timm(tmp_path):
    timm = pytest.importorskip('timm')
    for name in ('resnet10t', 'convnext_atto'):
        expected = timm.create_model(name, pretrained=False)
        torch.save(expected.state_dict(), tmp_path / 'a.pth')
        model = nn.ModuleDict({'net': timm.create_model(name, pretrained=False, features_only=True)})
        Pretrained(checkpoint=str(tmp_path / 'a.pth'))(model)
        assert torch.equal(next(model.parameters()), next(expected.parameters()))
