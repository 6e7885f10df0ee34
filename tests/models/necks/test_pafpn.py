import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.models.necks import FPN, PAFPN
from frdet.registry import NECKS

CHANNELS = (4, 6, 8, 10)
PATH = ('downsample_convs', 'pafpn_convs')


def backbone_maps() -> list[Tensor]:
    """Sides of which some are odd: a stride of 2 rounds up, as in the backbone."""
    sizes = ((23, 40), (12, 20), (6, 10), (3, 5))
    return [torch.randn(2, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)]


def make(**options: object) -> PAFPN:
    neck = PAFPN(in_channels=CHANNELS, out_channels=5, **options)
    for parameter in neck.parameters():
        nn.init.normal_(parameter, std=0.3)
    return neck


@pytest.mark.parametrize('last_level', ['maxpool', 'p6p7_on_c5', 'p6p7_on_p5', None])
@torch.no_grad()
def test_the_second_path_by_plain_convolutions(last_level: str | None) -> None:
    """On the maps of an FPN with the same weights."""
    neck, maps = make(last_level=last_level), backbone_maps()
    state = neck.state_dict()
    fpn = FPN(in_channels=CHANNELS, out_channels=5, last_level=last_level)
    own = fpn.state_dict()
    assert state.keys() - own.keys() == {
        f'{part}.{i}.conv.{kind}' for part in PATH for i in range(3) for kind in ('weight', 'bias')
    }
    fpn.load_state_dict({name: state[name] for name in own})
    p2, *coarser = fpn(maps)[:4]
    expected, summed = [p2], p2
    for i, found in enumerate(coarser):
        down, conv = ([state[f'{part}.{i}.conv.{k}'] for k in ('weight', 'bias')] for part in PATH)
        summed = found + F.conv2d(summed, *down, stride=2, padding=1)
        expected.append(F.conv2d(summed, *conv, padding=1))
    if last_level == 'maxpool':
        expected.append(expected[-1][:, :, ::2, ::2])
    elif last_level:
        first, second = ([state[f'fpn_convs.{i}.conv.{k}'] for k in ('weight', 'bias')] for i in (4, 5))
        start = maps[-1] if last_level == 'p6p7_on_c5' else expected[-1]
        expected.append(F.conv2d(start, *first, stride=2, padding=1))
        expected.append(F.conv2d(expected[-1].relu(), *second, stride=2, padding=1))
    for one, other in zip(neck(maps), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_it_takes_the_options_of_fpn() -> None:
    neck = make(in_features=(1, 2), norm=dict(type='GN', num_groups=5), last_level=None)
    assert sum(isinstance(m, nn.GroupNorm) for m in neck.modules()) == 4 + 2
    assert [tuple(m.shape[2:]) for m in neck(backbone_maps())] == [(12, 20), (6, 10)]
    with pytest.raises(ConfigError, match="PAFPN has no argument 'fuse_typ': did you mean fuse_type"):
        NECKS.build(dict(type='PAFPN', in_channels=CHANNELS, fuse_typ='sum'))


def test_a_map_between_two_others_is_needed() -> None:
    with pytest.raises(ConfigError, match=r'in_features are \(1, 3\), expected neighbours'):
        make(in_features=(1, 3))
