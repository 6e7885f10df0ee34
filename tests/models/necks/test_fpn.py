import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from frdet.errors import ConfigError
from frdet.models.necks import FPN

CHANNELS = (4, 6, 8, 10)


def backbone_maps() -> list[Tensor]:
    sizes = ((24, 40), (12, 20), (6, 10), (3, 5))
    return [torch.randn(2, c, *size, requires_grad=True) for c, size in zip(CHANNELS, sizes, strict=True)]


def torchvision_twin(fpn: FPN, extra_blocks: ExtraFPNBlock) -> FeaturePyramidNetwork:
    reference = FeaturePyramidNetwork(list(fpn.in_channels), 5, extra_blocks=extra_blocks)
    for name, source in (('inner_blocks', fpn.lateral_convs), ('layer_blocks', fpn.fpn_convs[:4])):
        for block, layer in zip(getattr(reference, name), source, strict=True):
            block[0].load_state_dict(layer.conv.state_dict())
    return reference


@pytest.mark.parametrize(
    ('last_level', 'extra_blocks', 'count'),
    [
        ('maxpool', LastLevelMaxPool(), 5),
        ('p6p7_on_c5', LastLevelP6P7(CHANNELS[-1], 5), 6),
        ('p6p7_on_p5', LastLevelP6P7(5, 5), 6),
    ],
)
def test_is_torchvisions(last_level: str, extra_blocks: ExtraFPNBlock, count: int) -> None:
    fpn = FPN(in_channels=CHANNELS, out_channels=5, last_level=last_level)
    for parameter in fpn.parameters():
        nn.init.normal_(parameter, std=0.3)
    reference, maps = torchvision_twin(fpn, extra_blocks), backbone_maps()
    for name, layer in zip(('p6', 'p7'), fpn.fpn_convs[4:], strict=False):
        getattr(extra_blocks, name).load_state_dict(layer.conv.state_dict())
    found = fpn(maps)
    expected = list(reference({str(i): m for i, m in enumerate(maps)}).values())
    assert len(found) == count
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    gradients = [
        torch.autograd.grad(sum(o.square().sum() for o in outputs), maps, retain_graph=True)
        for outputs in (found, expected)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_p6_takes_every_second_cell_of_p5() -> None:
    *_, p5, p6 = FPN(in_channels=CHANNELS, out_channels=5)(backbone_maps())
    torch.testing.assert_close(p6, p5[:, :, ::2, ::2])


def test_without_last_level() -> None:
    assert len(FPN(in_channels=CHANNELS, out_channels=5, last_level=None)(backbone_maps())) == 4


def identity_fpn(fuse_type: str, levels: int) -> FPN:
    """One channel in and out; lateral and output convolutions pass their input on."""
    fpn = FPN(in_channels=(1,) * levels, out_channels=1, fuse_type=fuse_type, last_level=None)
    for lateral, output in zip(fpn.lateral_convs, fpn.fpn_convs, strict=True):
        nn.init.ones_(lateral.conv.weight)
        nn.init.zeros_(output.conv.weight)
        output.conv.weight.data[0, 0, 1, 1] = 1.0
    return fpn


def test_sum_and_average_by_hand() -> None:
    c3 = torch.tensor([[[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]])
    c4 = torch.tensor([[[[10.0, 20.0]]]])
    c5 = torch.tensor([[[[100.0]]]])
    p3, p4, p5 = identity_fpn('sum', 3)([c3, c4, c5])
    assert p5.tolist() == [[[[100.0]]]]
    assert p4.tolist() == [[[[110.0, 120.0]]]]  # 10 + 100, 20 + 100
    assert p3.tolist() == [[[[111.0, 112.0, 123.0, 124.0], [115.0, 116.0, 127.0, 128.0]]]]
    p3, p4, p5 = identity_fpn('avg', 3)([c3, c4, c5])
    assert p5.tolist() == [[[[100.0]]]]
    assert p4.tolist() == [[[[55.0, 60.0]]]]  # (10 + 100) / 2, (20 + 100) / 2
    assert p3.tolist() == [[[[28.0, 28.5, 31.5, 32.0], [30.0, 30.5, 33.5, 34.0]]]]  # (1 + 55) / 2, (2 + 55) / 2, ...


def test_in_features_choose_maps() -> None:
    fpn = FPN(in_channels=CHANNELS, out_channels=5, in_features=(1, 3))
    maps = backbone_maps()
    p3, p5, p6 = fpn(maps)
    assert [tuple(p.shape[2:]) for p in (p3, p5, p6)] == [(12, 20), (3, 5), (2, 3)]
    lateral5 = fpn.lateral_convs[1](maps[3])
    torch.testing.assert_close(p5, fpn.fpn_convs[1](lateral5))
    # 3 x 5 to 12 x 20: every cell four times in each direction.
    upsampled = lateral5.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(p3, fpn.fpn_convs[0](fpn.lateral_convs[0](maps[1]) + upsampled))


def test_norm_after_every_convolution() -> None:
    fpn = FPN(in_channels=CHANNELS, out_channels=4, norm=dict(type='GN', num_groups=2))
    assert not any(name.endswith('conv.bias') for name, _ in fpn.named_parameters())
    assert sum(isinstance(m, nn.GroupNorm) for m in fpn.modules()) == 8
    p5 = fpn(backbone_maps())[3]
    groups = p5.reshape(2, 2, -1)  # a fresh GN gives each group mean 0 and variance 1
    torch.testing.assert_close(groups.mean(dim=2), torch.zeros(2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(groups.var(dim=2, unbiased=False), torch.ones(2, 2), atol=1e-3, rtol=0)


def test_parameter_names() -> None:
    names = set(FPN(in_channels=(4, 6), out_channels=5).state_dict())
    assert names == {
        f'{part}.{i}.conv.{kind}'
        for part in ('lateral_convs', 'fpn_convs')
        for i in (0, 1)
        for kind in ('weight', 'bias')
    }


def test_channels_that_do_not_fit_are_named() -> None:
    with pytest.raises(ConfigError, match=r'maps of 4, 6, 8, 10 channels, neck.in_channels says \(4, 6, 8, 12\)'):
        FPN(in_channels=(4, 6, 8, 12), out_channels=5)(backbone_maps())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(fuse_type='mean'), "fuse_type is 'mean'"),
        (dict(last_level='p6p7'), "last_level is 'p6p7', expected one of 'maxpool', 'p6p7_on_c5'"),
        (dict(in_channels=None), 'in_channels is None'),
        (dict(in_features=(0, 4)), r'in_features \(0, 4\) do not index the 4 in_channels'),
        (dict(in_features=()), r'in_features \(\) do not index'),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FPN(**{'in_channels': CHANNELS, **arguments})
