from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from frdet.errors import ConfigError
from frdet.models.backbones import ResNet
from frdet.models.layers import FrozenBatchNorm2d

BN = dict(type='BN')


def torchvision_resnet(depth: int) -> nn.Module:
    """torchvision's, in evaluation mode, with norm statistics that are not the identity and tame activations."""
    net = torchvision.models.get_model(f'resnet{depth}', weights=None)
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 1.0, 2.0)
        if name.endswith('bn3' if depth >= 50 else 'bn2'):
            nn.init.constant_(module.weight, 0.3)
    return net.eval()


def torchvision_maps(net: nn.Module, x: Tensor) -> list[Tensor]:
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    maps = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        maps.append(x)
    return maps


def without_classifier(net: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in net.state_dict().items() if not k.startswith('fc.')}


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('kind', ['BN', 'FrozenBN'])
@torch.no_grad()
def test_pytorch_style_is_torchvisions(depth: int, kind: str) -> None:
    reference = torchvision_resnet(depth)
    net = ResNet(depth=depth, style='pytorch', norm=dict(type=kind)).eval()
    net.load_state_dict(without_classifier(reference), strict=True)
    x = torch.randn(2, 3, 64, 96)
    maps, expected = net(x), torchvision_maps(reference, x)
    assert len(maps) == 4
    for found, map_, channels in zip(maps, expected, net.out_channels, strict=True):
        assert found.shape[1] == channels
        torch.testing.assert_close(found, map_, atol=1e-4, rtol=1e-4)
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_gradients_are_torchvisions() -> None:
    reference = torchvision_resnet(18)
    net = ResNet(depth=18, style='pytorch', norm=dict(type='FrozenBN'), frozen_stages=-1)
    net.load_state_dict(without_classifier(reference))
    x = torch.randn(1, 3, 64, 64)
    sum(m.square().mean() for m in net(x)).backward()
    sum(m.square().mean() for m in torchvision_maps(reference, x)).backward()
    expected = dict(reference.named_parameters())
    for name, parameter in net.named_parameters():
        reach = expected[name].grad.abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-4 * reach, rtol=1e-3)


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_names_are_torchvisions_without_the_classifier(depth: int) -> None:
    with torch.device('meta'):
        reference = without_classifier(torchvision.models.get_model(f'resnet{depth}', weights=None))
        net = ResNet(depth=depth, style='pytorch', norm=BN)
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in reference.items()}


def strides(net: ResNet) -> dict[str, int]:
    """The convolutions of layer1..4 that have a stride."""
    return {
        name: m.stride[0]
        for name, m in net.named_modules()
        if isinstance(m, nn.Conv2d) and m.stride != (1, 1) and name.startswith('layer')
    }


def test_caffe_style_has_the_stride_in_the_first_1x1() -> None:
    expected = {f'layer{i}.0.{conv}': 2 for i in (2, 3, 4) for conv in ('conv1', 'downsample.0')}
    assert strides(ResNet(depth=50, style='caffe', norm=BN)) == expected


def test_pytorch_style_has_the_stride_in_the_3x3() -> None:
    expected = {f'layer{i}.0.{conv}': 2 for i in (2, 3, 4) for conv in ('conv2', 'downsample.0')}
    assert strides(ResNet(depth=50, style='pytorch', norm=BN)) == expected


@pytest.mark.parametrize('style', ['caffe', 'pytorch'])
def test_basic_blocks_are_the_same_in_both_styles(style: str) -> None:
    expected = {f'layer{i}.0.{conv}': 2 for i in (2, 3, 4) for conv in ('conv1', 'downsample.0')}
    assert strides(ResNet(depth=18, style=style, norm=BN)) == expected


@pytest.mark.parametrize(
    ('frozen_stages', 'frozen'),
    [(-1, ()), (0, ('conv1', 'bn1')), (1, ('conv1', 'bn1', 'layer1')), (2, ('conv1', 'bn1', 'layer1', 'layer2'))],
)
def test_frozen_stages_are_not_trained(frozen_stages: int, frozen: tuple[str, ...]) -> None:
    net = ResNet(depth=18, norm=BN, frozen_stages=frozen_stages).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    sum(m.square().mean() for m in net(torch.randn(2, 3, 64, 64))).backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == (name.split('.')[0] in frozen), name
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.training == (name.split('.')[0] not in frozen), name
    for name, value in net.state_dict().items():
        if 'running' in name:
            assert torch.equal(value, before[name]) == (name.split('.')[0] in frozen), name


def test_norm_eval_keeps_every_norm_in_evaluation_mode() -> None:
    net = ResNet(depth=18, norm=BN, frozen_stages=0, norm_eval=True).train()
    assert net.training and net.layer4.training
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert net.layer1[0].bn1.weight.requires_grad
    assert not net.bn1.weight.requires_grad


def test_out_indices_choose_the_maps() -> None:
    net = ResNet(depth=18, norm=BN, out_indices=(1, 2)).eval()
    assert net.out_channels == (128, 256)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert [tuple(m.shape) for m in net(x)] == [(1, 128, 8, 8), (1, 256, 4, 4)]
    trained = {name.split('.')[0] for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trained == {'layer2', 'layer3'}  # the stem and layer1 are frozen
    assert not any(name.startswith('layer4') for name, _ in net.named_modules())
    assert not any(p.requires_grad for p in ResNet(depth=18, norm=BN, out_indices=(0, 1), frozen_stages=4).parameters())


@pytest.mark.parametrize('depth', [18, 50])
def test_base_channels_scale_every_layer(depth: int) -> None:
    """With half of torchvision's 64, every size of every weight is halved, but for the 3 colours and the kernels."""
    with torch.device('meta'):
        reference = without_classifier(torchvision.models.get_model(f'resnet{depth}', weights=None))
        net = ResNet(depth=depth, norm=BN, base_channels=32)
    halved = {k: tuple(n // 2 if n >= 64 else n for n in v.shape) for k, v in reference.items()}
    assert {k: tuple(v.shape) for k, v in net.state_dict().items()} == halved
    assert net.out_channels == ((32, 64, 128, 256) if depth == 18 else (128, 256, 512, 1024))


@pytest.mark.parametrize('kind', ['FrozenBN', 'BN', 'SyncBN', 'GN'])
def test_every_norm_is_called_bn(kind: str) -> None:
    net = ResNet(depth=18, norm=dict(type=kind)).eval()
    types = {'FrozenBN': FrozenBatchNorm2d, 'BN': nn.BatchNorm2d, 'SyncBN': nn.SyncBatchNorm, 'GN': nn.GroupNorm}
    assert isinstance(net.bn1, types[kind])
    assert isinstance(net.layer2[0].bn2, types[kind])
    assert isinstance(net.layer2[0].downsample[1], types[kind])


def test_zero_init_residual_starts_blocks_as_the_identity() -> None:
    net = ResNet(depth=18, norm=BN, zero_init_residual=True).eval()
    x = torch.rand(1, 64, 8, 8)  # not negative, as behind a ReLU
    with torch.no_grad():
        torch.testing.assert_close(net.layer1(x), x)


def test_convolutions_start_as_kaiming_fan_out() -> None:
    """Standard deviation sqrt(2 / fan-out): 512 * 9 outputs see each input of layer4's 3x3."""
    std = ResNet(depth=18, norm=BN).layer4[1].conv2.weight.std().item()
    assert std == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_pretrained_weights_are_loaded(tmp_path: Path) -> None:
    """Through init_cfg, as a detector's init_weights does."""
    path = tmp_path / 'resnet18.pth'
    torch.save(without_classifier(torchvision_resnet(18)), path)
    net = ResNet(
        depth=18,
        style='pytorch',
        norm=dict(type='FrozenBN'),
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    net.init_weights()
    expected = torch.load(path)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(depth=20), 'depth is 20, expected one of 18, 34, 50, 101, 152'),
        (dict(depth=18, style='torch'), "style is 'torch', expected 'caffe' or 'pytorch'"),
        (dict(depth=18, frozen_stages=5), 'frozen_stages is 5, expected -1 to 4'),
        (dict(depth=18, out_indices=(2, 4)), r'out_indices are \(2, 4\), expected'),
        (dict(depth=18, out_indices=()), r'out_indices are \(\), expected'),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNet(**{'norm': BN, **arguments})


def deformable(**changes: object) -> ResNet:
    options = dict(depth=50, norm=dict(type='FrozenBN'), base_channels=8, dcn=dict(type='DCNv2', deform_groups=1))
    return ResNet(**{**options, **changes})


def test_deformable_layers_and_their_names() -> None:
    """As in MMDetection's checkpoints: 27 channels of offsets and factors in each 3x3 of layer2 to layer4."""
    net = deformable()
    own = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    plain = {name: tuple(value.shape) for name, value in deformable(dcn=None).state_dict().items()}
    added = {name: shape for name, shape in own.items() if name not in plain}
    assert {**plain, **added} == own and len(added) == 2 * (4 + 6 + 3)
    assert added['layer2.0.conv2.conv_offset.weight'] == (27, 16, 3, 3)
    assert added['layer4.2.conv2.conv_offset.bias'] == (27,)
    assert set(net.added_layers) == {name.rpartition('.')[0] for name in added}
    two = deformable(stage_with_dcn=(False, False, False, True), dcn=dict(type='DCNv2', deform_groups=2))
    assert list(two.added_layers) == [f'layer4.{i}.conv2.conv_offset' for i in range(3)]
    assert two.layer4[0].conv2.conv_offset.out_channels == 54


@pytest.mark.parametrize('style', ['caffe', 'pytorch'])
def test_deformable_maps(style: str) -> None:
    """With the offsets of the start they are those of a plain ResNet whose 3x3 weights are halved."""
    net, plain = deformable(style=style), deformable(style=style, dcn=None)
    state = net.state_dict()
    plain.load_state_dict({name: value for name, value in state.items() if 'conv_offset' not in name})
    for layer in (plain.layer2, plain.layer3, plain.layer4):
        for block in layer:
            block.conv2.weight.data /= 2
    x = torch.randn(1, 3, 64, 96).to(memory_format=torch.channels_last)
    for found, expected in zip(net(x), plain(x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    net(x)[-1].sum().backward()
    assert net.layer2[0].conv2.conv_offset.weight.grad.ne(0).any()


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(depth=18), 'dcn with depth 18, expected 50, 101 or 152'),
        (dict(stage_with_dcn=(True, True)), 'expected a boolean for each of 4 stages'),
        (dict(dcn=dict(type='DCNv2', groups=2)), "DCNv2.* has no argument 'groups'|has no argument 'groups'"),
    ],
)
def test_wrong_deformable_layers(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        deformable(**changes)
